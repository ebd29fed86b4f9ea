// Calls on files that Swift's Glibc module lacks: openat2, getdents64, extended attributes, holes, clones.
// Every function returns its value or -errno.
#ifndef CLINUX_FILES_H
#define CLINUX_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

extern const int clx_O_PATH, clx_SEEK_DATA, clx_SEEK_HOLE;
extern const uint64_t clx_RESOLVE_NO_XDEV, clx_RESOLVE_NO_MAGICLINKS, clx_RESOLVE_NO_SYMLINKS, clx_RESOLVE_BENEATH,
    clx_RESOLVE_IN_ROOT;

int clx_openat2(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
ssize_t clx_getdents64(int fd, void *buffer, size_t size);

/// The path's last component is not followed if it is a symbolic link.
ssize_t clx_llistxattr(const char *path, char *names, size_t size);
ssize_t clx_lgetxattr(const char *path, const char *name, void *value, size_t size);
int clx_lsetxattr(const char *path, const char *name, const void *value, size_t size);
int clx_lremovexattr(const char *path, const char *name);

int64_t clx_lseek(int fd, int64_t offset, int whence);
int clx_punch_hole(int fd, uint64_t offset, uint64_t length);
/// Makes all of `to` share `from`'s blocks (FICLONE): -EOPNOTSUPP, -EXDEV, -EINVAL where the file system cannot.
int clx_ficlone(int to, int from);
ssize_t clx_copy_file_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t size);
/// inotify(7), for folders and what is in them: anything that changes an entry or its content. The path is followed.
int clx_watch_new(void);
int clx_watch_add(int watch, const char *path);
int clx_watch_remove(int watch, int number);
/// ioctl(2) FIONREAD: bytes that can be read without waiting.
int clx_bytes_to_read(int fd);
/// fstatfs(2): the magic number, and the bytes and inodes free for an unprivileged writer.
int clx_fstatfs(int fd, int64_t *type, uint64_t *bytes, uint64_t *inodes);

#endif
