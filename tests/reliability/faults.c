// Makes the n-th input or output call below one folder fail, or kills the process there. Loaded with LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long target = 0, seen = 0;
static int fault = 0, only_writes = 0, lasting = 0;

// From now on count the calls below `path`; the n-th one, and with `persist` every later one, fails with `error`.
// error 0: the process is killed before the call. `writes`: calls that only read are neither counted nor failed.
void faults_arm(const char* path, long n, int error, int persist, int writes) {
  strncpy(folder, path, sizeof folder - 1);
  target = n, seen = 0, fault = error, lasting = persist, only_writes = writes;
}
void faults_disarm(void) { folder[0] = 0; }
long faults_seen(void) { return seen; }

enum { READS, WRITES, REMOVES };

static int fails(int below, int kind) {
  if (!below || !folder[0] || (only_writes && kind != WRITES)) return 0;
  seen++;
  if (seen != target && !(lasting && seen > target)) return 0;
  if (fault == 0) kill(getpid(), SIGKILL), pause();
  errno = fault;
  return 1;
}
static int at_path(const char* path) { return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0; }
static int at_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!folder[0]) return 0;
  int before = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  return length > 0 && (path[length] = 0, at_path(path));
}
static int at_either(int fd, const char* path) { return path && path[0] == '/' ? at_path(path) : at_fd(fd); }
static int kind_of(int flags) { return flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR) ? WRITES : READS; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

#define OPEN(name) int name(const char* path, int flags, ...) { \
  MODE(flags) return fails(at_path(path), kind_of(flags)) ? -1 : REAL(name)(path, flags, mode); }
#define OPENAT(name) int name(int fd, const char* path, int flags, ...) { \
  MODE(flags) return fails(at_either(fd, path), kind_of(flags)) ? -1 : REAL(name)(fd, path, flags, mode); }
#define BY_FD(result, name, kind, declared, passed) result name declared { \
  return fails(at_fd(fd), kind) ? -1 : REAL(name) passed; }
#define BY_PATH(name, kind, declared, passed) int name declared { return fails(at_path(path), kind) ? -1 : REAL(name) passed; }
#define BY_EITHER(name, kind, declared, passed) int name declared { \
  return fails(at_either(at, path), kind) ? -1 : REAL(name) passed; }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
BY_FD(ssize_t, read, READS, (int fd, void* data, size_t size), (fd, data, size))
BY_FD(ssize_t, pread, READS, (int fd, void* data, size_t size, off_t place), (fd, data, size, place))
BY_FD(ssize_t, pread64, READS, (int fd, void* data, size_t size, off64_t place), (fd, data, size, place))
BY_FD(ssize_t, write, WRITES, (int fd, const void* data, size_t size), (fd, data, size))
BY_FD(ssize_t, pwrite, WRITES, (int fd, const void* data, size_t size, off_t place), (fd, data, size, place))
BY_FD(ssize_t, pwrite64, WRITES, (int fd, const void* data, size_t size, off64_t place), (fd, data, size, place))
BY_FD(ssize_t, writev, WRITES, (int fd, const struct iovec* data, int count), (fd, data, count))
BY_FD(int, fsync, WRITES, (int fd), (fd))
BY_FD(int, fdatasync, WRITES, (int fd), (fd))
BY_FD(int, ftruncate, WRITES, (int fd, off_t size), (fd, size))
BY_FD(int, ftruncate64, WRITES, (int fd, off64_t size), (fd, size))
// These two say what was wrong instead of setting errno.
int posix_fallocate(int fd, off_t place, off_t size) {
  return fails(at_fd(fd), WRITES) ? fault : REAL(posix_fallocate)(fd, place, size); }
int posix_fallocate64(int fd, off64_t place, off64_t size) {
  return fails(at_fd(fd), WRITES) ? fault : REAL(posix_fallocate64)(fd, place, size); }
BY_PATH(mkdir, WRITES, (const char* path, mode_t mode), (path, mode))
BY_PATH(chmod, WRITES, (const char* path, mode_t mode), (path, mode))
BY_PATH(link, WRITES, (const char* path, const char* other), (path, other))
BY_PATH(rename, WRITES, (const char* path, const char* other), (path, other))
BY_PATH(unlink, REMOVES, (const char* path), (path))
BY_PATH(rmdir, REMOVES, (const char* path), (path))
BY_EITHER(unlinkat, REMOVES, (int at, const char* path, int flags), (at, path, flags))
BY_EITHER(renameat, WRITES, (int at, const char* path, int to, const char* other), (at, path, to, other))
BY_EITHER(renameat2, WRITES, (int at, const char* path, int to, const char* other, unsigned flags),
          (at, path, to, other, flags))
