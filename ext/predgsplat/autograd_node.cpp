// `render` for CPU tensors as one call from Python, with its gradient as a node of torch's own engine. It calls the
// kernels of the CPU library and computes nothing itself; what it saves is the host's time: checks, dispatch and an
// autograd.Function in Python take longer than a small frame.
//
// The stable ABI has no autograd nodes, so this module needs torch's C++ headers and works with the torch, the Python
// and the compiler it was built for. It is optional: pdr_cli/splat/node.py loads it, and where it is absent, or where a
// call is not plain (a subclass of Tensor, a transform, an invalid shape, ...), the path through Python takes over.
#include <Python.h>

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "kernels.h"

namespace predgsplat {
namespace {

using at::Tensor;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

const CpuKernels* kernels = nullptr;
PyObject* render_backward = nullptr;  // derivatives.render_backward

struct Options {
  int64_t height, width;
  double kernel_size;
  bool analytic;
};

// Whether torch does what it does by default: no transform, no mode of Python, no trace and no profiler.
bool plain_state() {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  const bool included = (local.included_.raw_repr() & ~c10::default_included_set.raw_repr()) == 0;
  const bool excluded = (local.excluded_.raw_repr() & ~c10::default_excluded_set.raw_repr()) == 0;
  return included && (excluded || c10::InferenceMode::is_enabled()) && !at::impl::torch_function_mode_enabled() &&
         !c10::impl::dispatch_mode_enabled() && !torch::jit::tracer::isTracing() && !at::hasCallbacks() &&
         !torch::autograd::ForwardADLevel::try_get_by_idx(0);
}

// Whether x is a dense float32 tensor of the CPU and nothing more.
bool plain(const Tensor& x) {
  constexpr c10::DispatchKeySet usual({c10::DispatchKey::CPU, c10::DispatchKey::AutogradCPU,
                                       c10::DispatchKey::AutocastCPU, c10::DispatchKey::ADInplaceOrView});
  return (x.key_set().raw_repr() & ~usual.raw_repr()) == 0 && x.scalar_type() == at::kFloat;
}

// The four inputs, contiguous, and the Problem that the kernels solve.
struct Inputs {
  c10::MaybeOwned<Tensor> coords, scale, rotation, amplitudes;
  Problem problem;

  Inputs(const Options& options, const Tensor& coords_, const Tensor& scale_, const Tensor& rotation_,
         const Tensor& amplitudes_)
      : coords(coords_.expect_contiguous()),
        scale(scale_.expect_contiguous()),
        rotation(rotation_.expect_contiguous()),
        amplitudes(amplitudes_.expect_contiguous()) {
    const auto sizes = amplitudes->sizes();
    problem = {c10::multiply_integers(sizes.slice(0, sizes.size() - 2)),
               sizes[sizes.size() - 2],
               sizes.back(),
               make_geometry(static_cast<int>(options.height), static_cast<int>(options.width), options.kernel_size,
                             options.analytic),
               coords->const_data_ptr<float>(),
               scale->const_data_ptr<float>(),
               rotation->const_data_ptr<float>(),
               amplitudes->const_data_ptr<float>()};
  }
};

Tensor new_empty(at::IntArrayRef shape) { return at::detail::empty_cpu(shape, at::TensorOptions().dtype(at::kFloat)); }

Tensor image_of(const Options& options, const Tensor& coords, const Tensor& scale, const Tensor& rotation,
                const Tensor& amplitudes) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const Inputs inputs(options, coords, scale, rotation, amplitudes);
  const auto sizes = amplitudes.sizes();
  c10::SmallVector<int64_t, 6> shape(sizes.begin(), sizes.end() - 2);
  shape.append({sizes.back(), options.height, options.width});
  Tensor image = new_empty(shape);
  kernels->forward(inputs.problem, image.mutable_data_ptr<float>());
  return image;
}

struct Owned {
  PyObject* object;
  explicit Owned(PyObject* object) : object(object) {}
  Owned(const Owned&) = delete;
  ~Owned() { Py_XDECREF(object); }
};

struct WithPython {
  PyGILState_STATE state = PyGILState_Ensure();
  ~WithPython() { PyGILState_Release(state); }
};

struct WithoutPython {
  PyThreadState* state = PyEval_SaveThread();
  ~WithoutPython() { PyEval_RestoreThread(state); }
};

[[noreturn]] void raise_from_python() {
  python_error error;
  error.persist();
  throw error;
}

struct RenderBackward : Node {
  SavedVariable coords, scale, rotation, amplitudes;
  Options options;

  variable_list apply(variable_list&& grads) override {
    const variable_list inputs = {coords.unpack(), scale.unpack(), rotation.unpack(), amplitudes.unpack()};
    Tensor grad = grads[0].defined() ? grads[0] : input_metadata(0).zeros_like();
    if (at::GradMode::is_enabled() || !plain_state()) return by_python(grad, inputs);
    const bool usual = plain(grad) && std::all_of(inputs.begin(), inputs.end(), plain);
    return usual ? by_kernel(grad, inputs) : by_python(grad, inputs);
  }

  void release_variables() override {
    for (SavedVariable* x : {&coords, &scale, &rotation, &amplitudes}) x->reset_data();
  }

  std::string name() const override { return "RenderBackward"; }

 private:
  variable_list by_kernel(const Tensor& grad, const variable_list& tensors) const {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto contiguous = grad.expect_contiguous();  // the gradient of a sum, for instance, is an expanded tensor
    const Inputs inputs(options, tensors[0], tensors[1], tensors[2], tensors[3]);
    variable_list results;
    float* pointers[4];
    for (int i = 0; i < 4; ++i) {
      results.push_back(new_empty(tensors[i].sizes()));
      pointers[i] = results[i].mutable_data_ptr<float>();
    }
    kernels->backward(inputs.problem, contiguous->const_data_ptr<float>(),
                      {pointers[0], pointers[1], pointers[2], pointers[3]});
    return results;
  }

  variable_list by_python(const Tensor& grad, const variable_list& inputs) const {
    const WithPython with;
    const Owned arguments(Py_BuildValue("(NNNNNdN)", THPVariable_Wrap(grad), THPVariable_Wrap(inputs[0]),
                                        THPVariable_Wrap(inputs[1]), THPVariable_Wrap(inputs[2]),
                                        THPVariable_Wrap(inputs[3]), options.kernel_size,
                                        PyBool_FromLong(options.analytic)));
    const Owned results(arguments.object ? PyObject_CallObject(render_backward, arguments.object) : nullptr);
    if (!results.object) raise_from_python();
    variable_list list;
    for (int i = 0; i < 4; ++i) list.push_back(THPVariable_Unpack(PyTuple_GetItem(results.object, i)));
    return list;
  }
};

void set_gradient(Tensor& image, const Options& options, const Tensor& coords, const Tensor& scale,
                  const Tensor& rotation, const Tensor& amplitudes) {
  auto node = c10::make_intrusive<RenderBackward>();
  node->set_next_edges(torch::autograd::collect_next_edges(coords, scale, rotation, amplitudes));
  node->coords = SavedVariable(coords, false);
  node->scale = SavedVariable(scale, false);
  node->rotation = SavedVariable(rotation, false);
  node->amplitudes = SavedVariable(amplitudes, false);
  node->options = options;
  torch::autograd::set_history(image, node);
}

bool shapes_fit(const Tensor& coords, const Tensor& scale, const Tensor& rotation, const Tensor& amplitudes) {
  const auto shape = coords.sizes();
  if (shape.size() < 2 || shape.back() != 2 || amplitudes.dim() != static_cast<int64_t>(shape.size())) return false;
  const auto gaussians = shape.slice(0, shape.size() - 1);
  return scale.sizes() == shape && rotation.sizes() == gaussians &&
         amplitudes.sizes().slice(0, gaussians.size()) == gaussians;
}

bool is(PyObject* text, const char* expected) {
  return PyUnicode_CheckExact(text) && PyUnicode_CompareWithASCIIString(text, expected) == 0;
}

// The options, if they are valid: those of the function `render` in pdr_cli/splat, from `size` on.
std::optional<Options> options_of(PyObject* const* arguments) {
  constexpr int64_t MOST = 1 << 20;
  PyObject *size = arguments[0], *kernel_size = arguments[1], *sampling = arguments[3];
  if (!is(arguments[2], "peak") || !(is(arguments[4], "auto") || is(arguments[4], "cpu"))) return {};
  if (!PyTuple_Check(size) || PyTuple_GET_SIZE(size) != 2) return {};
  PyObject *height = PyTuple_GET_ITEM(size, 0), *width = PyTuple_GET_ITEM(size, 1);
  if (!PyLong_CheckExact(height) || !PyLong_CheckExact(width)) return {};
  if (!PyLong_CheckExact(kernel_size) && !PyFloat_CheckExact(kernel_size)) return {};
  Options options{PyLong_AsLongLong(height), PyLong_AsLongLong(width), PyFloat_AsDouble(kernel_size),
                  is(sampling, "analytic")};
  if (PyErr_Occurred()) {
    PyErr_Clear();  // numbers beyond 64 bits
    return {};
  }
  const double k = options.kernel_size;
  const bool odd = k >= 3 && k <= MOST && std::fmod(k, 2) == 1;
  if (options.analytic ? !(k > 1) : !(odd && is(sampling, "lattice"))) return {};
  const auto valid = [](int64_t n) { return n >= 1 && n <= MOST; };
  if (!valid(options.height) || !valid(options.width)) return {};
  return options;
}

// render(coords, scale, rotation, amplitudes, size, kernel_size, normalize, sampling, backend): the image, or None where
// the call is not plain. An environment that names a backend is left to Python too.
PyObject* render(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 9, "expected nine arguments, found ", count);
  for (int i = 0; i < 4; ++i)
    if (!THPVariable_CheckExact(arguments[i])) Py_RETURN_NONE;
  const Tensor &coords = THPVariable_Unpack(arguments[0]), &scale = THPVariable_Unpack(arguments[1]),
               &rotation = THPVariable_Unpack(arguments[2]), &amplitudes = THPVariable_Unpack(arguments[3]);
  const char* named = std::getenv("PREDGSPLAT_BACKEND");
  if ((named && *named) || !plain(coords) || !plain(scale) || !plain(rotation) || !plain(amplitudes)) Py_RETURN_NONE;
  const auto options = options_of(arguments + 4);
  if (!options || !shapes_fit(coords, scale, rotation, amplitudes) || !plain_state()) Py_RETURN_NONE;
  Tensor image;
  {
    const WithoutPython without;
    image = image_of(*options, coords, scale, rotation, amplitudes);
  }
  if (torch::autograd::compute_requires_grad(coords, scale, rotation, amplitudes))
    set_gradient(image, *options, coords, scale, rotation, amplitudes);
  return THPVariable_Wrap(std::move(image));
  END_HANDLE_TH_ERRORS
}

// connect(address of the CPU library's kernels, derivatives.render_backward)
PyObject* connect(PyObject*, PyObject* arguments) {
  unsigned long long address;
  PyObject* backward;
  if (!PyArg_ParseTuple(arguments, "KO", &address, &backward)) return nullptr;
  kernels = reinterpret_cast<const CpuKernels*>(address);
  Py_INCREF(backward);
  Py_XSETREF(render_backward, backward);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {{"render", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(render)), METH_FASTCALL, ""},
                         {"connect", connect, METH_VARARGS, ""},
                         {}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "predgsplat_node", "", -1, methods, {}, {}, {}, {}};

}  // namespace
}  // namespace predgsplat

PyMODINIT_FUNC PyInit_predgsplat_node() { return PyModule_Create(&predgsplat::definition); }
