// What the CUDA library asks of a GPU, for a library that has none: a device to select, and a stream. cuda_on_cpu.h asks for
// the sanitizer's functions, which a library within Python has not either.
#include <cstddef>
#include <cstdint>

extern "C" {
int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  static char any;
  *guard = &any;
  return 0;
}
int32_t aoti_torch_delete_device_guard(void*) { return 0; }
int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
}
