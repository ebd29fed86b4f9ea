// See include/clinux_files.h.
#define _GNU_SOURCE
#include "clinux_files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define RESULT(call) ({ long r_ = (call); r_ < 0 ? -(long)errno : r_; })

const int clx_O_PATH = O_PATH, clx_SEEK_DATA = SEEK_DATA, clx_SEEK_HOLE = SEEK_HOLE;
const uint64_t clx_RESOLVE_NO_XDEV = RESOLVE_NO_XDEV, clx_RESOLVE_NO_MAGICLINKS = RESOLVE_NO_MAGICLINKS,
               clx_RESOLVE_NO_SYMLINKS = RESOLVE_NO_SYMLINKS, clx_RESOLVE_BENEATH = RESOLVE_BENEATH,
               clx_RESOLVE_IN_ROOT = RESOLVE_IN_ROOT;

int clx_openat2(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
  return RESULT(syscall(SYS_openat2, folder, path, &how, sizeof how));
}
ssize_t clx_getdents64(int fd, void *buffer, size_t size) { return RESULT(syscall(SYS_getdents64, fd, buffer, size)); }

ssize_t clx_llistxattr(const char *path, char *names, size_t size) { return RESULT(llistxattr(path, names, size)); }
ssize_t clx_lgetxattr(const char *path, const char *name, void *value, size_t size) {
  return RESULT(lgetxattr(path, name, value, size));
}
int clx_lsetxattr(const char *path, const char *name, const void *value, size_t size) {
  return RESULT(lsetxattr(path, name, value, size, 0));
}
int clx_lremovexattr(const char *path, const char *name) { return RESULT(lremovexattr(path, name)); }

int64_t clx_lseek(int fd, int64_t offset, int whence) { return RESULT(lseek(fd, offset, whence)); }
int clx_punch_hole(int fd, uint64_t offset, uint64_t length) {
  return RESULT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length));
}
int clx_ficlone(int to, int from) { return RESULT(ioctl(to, FICLONE, from)); }
ssize_t clx_copy_file_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t size) {
  loff_t in = (loff_t)from_offset, out = (loff_t)to_offset;
  return RESULT(copy_file_range(from, &in, to, &out, size, 0));
}
int clx_watch_new(void) { return (int)RESULT(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)); }
int clx_watch_add(int watch, const char *path) {
  return (int)RESULT(inotify_add_watch(
      watch, path, IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR));
}
int clx_watch_remove(int watch, int number) { return (int)RESULT(inotify_rm_watch(watch, number)); }
int clx_bytes_to_read(int fd) {
  int bytes = 0;
  int result = (int)RESULT(ioctl(fd, FIONREAD, &bytes));
  return result < 0 ? result : bytes;
}
int clx_fstatfs(int fd, int64_t *type, uint64_t *bytes, uint64_t *inodes) {
  struct statfs result;
  if (fstatfs(fd, &result) < 0) return -errno;
  *type = result.f_type;
  *bytes = (uint64_t)result.f_bavail * (uint64_t)result.f_bsize;
  *inodes = (uint64_t)result.f_ffree;
  return 0;
}
