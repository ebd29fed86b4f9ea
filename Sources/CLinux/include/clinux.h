// Kernel interfaces that Swift's Glibc module does not reach: variadic calls, structs and constants newer than
// the distribution's headers, ioctl numbers. Every function returns its value or -errno. No logic lives here.
// This header never defines _GNU_SOURCE (Foundation could not be imported beside it); the .c files do.
#ifndef CLINUX_H
#define CLINUX_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "clinux_files.h"
#include "clinux_net.h"
#include "clinux_probe.h"

#include "clinux_perf.h"

// ---- Processes -----------------------------------------------------------------------------------------------

long clx_syscall(long number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);
int clx_gettid(void);
int clx_tgkill(int pid, int tid, int signal);
int clx_pidfd_open(int pid, unsigned flags);
int clx_pidfd_getfd(int pidfd, int fd);
/// How a process that is gone ended, by a pidfd that was opened while it lived: a wait status (Linux 6.15). -EAGAIN: its
/// parent has not collected it yet.
int clx_pidfd_exit(int pidfd, int *status);
int clx_pidfd_send_signal(int pidfd, int signal);
/// waitid(P_PIDFD, WEXITED): the wait status as waitpid gives it.
int clx_waitpid(int pid, int *status, int options);
/// Compares kernel objects of two processes (KCMP_*): 0 equal, 1 less, 2 greater, 3 different.
int clx_kcmp(int pid1, int pid2, int type, uint64_t a, uint64_t b);
int clx_prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
int clx_get_robust_list(int tid, uint64_t *head, uint64_t *length);
int clx_prlimit(int pid, int resource, uint64_t new_soft, uint64_t new_hard, int set, uint64_t *soft, uint64_t *hard);
int clx_sched_get(int tid, int *policy, int *priority);
int clx_sched_set(int tid, int policy, int priority);
int clx_getpriority(int tid, int *nice);
int clx_setpriority(int tid, int nice);
int clx_ioprio_get(int tid);
int clx_setns(int fd, int type);
int clx_unshare(int flags);
int clx_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
int clx_umount(const char *target, int flags);
/// Where `part` first occurs in `text`, or -1 (memmem(3), a GNU extension).
long clx_find(const void *text, size_t size, const void *part, size_t length);

/// What a child started by clx_spawn gets.
struct clx_spawn_plan {
  const char *path;
  char *const *argv;
  char *const *envp;
  const char *cwd;         // or NULL
  int fds[3];              // become 0, 1 and 2; -1: /dev/null
  int netns;               // network namespace to enter, or -1
  int new_session;         // setsid
  int die_with_parent;     // PR_SET_PDEATHSIG SIGKILL: counts for the *thread* that spawns
};
/// clone3(CLONE_PIDFD | CLONE_CLEAR_SIGHAND) and exec; -errno if any step failed, else the PID.
int clx_spawn(const struct clx_spawn_plan *plan, int *pidfd);

// ---- ptrace --------------------------------------------------------------------------------------------------

long clx_ptrace(long request, int tid, uint64_t address, uint64_t data);
long clx_ptrace_ptr(long request, int tid, uint64_t address, void *data);

// ---- Memory --------------------------------------------------------------------------------------------------

ssize_t clx_process_vm_readv(int pid, const struct iovec *local, unsigned long local_count,
                             const struct iovec *remote, unsigned long remote_count);
ssize_t clx_process_vm_writev(int pid, const struct iovec *local, unsigned long local_count,
                              const struct iovec *remote, unsigned long remote_count);
ssize_t clx_pread(int fd, void *buffer, size_t size, uint64_t offset);
ssize_t clx_pwrite(int fd, const void *buffer, size_t size, uint64_t offset);
/// eventfd(0), close-on-exec and non-blocking.
int clx_eventfd(void);
ssize_t clx_tee(int from, int to, size_t size);
int clx_memfd_create(const char *name, unsigned flags);

// ---- ioctl ---------------------------------------------------------------------------------------------------

int clx_ioctl(int fd, unsigned long request, void *argument);
int clx_ioctl_value(int fd, unsigned long request, uint64_t argument);
int clx_fcntl(int fd, int command, long argument);

/// include/uapi/linux/fs.h, Linux 6.7.
struct clx_page_region { uint64_t start, end, categories; };
struct clx_pm_scan_arg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
extern const unsigned long clx_PAGEMAP_SCAN;
enum {
  CLX_PAGE_IS_WPALLOWED = 1 << 0, CLX_PAGE_IS_WRITTEN = 1 << 1, CLX_PAGE_IS_FILE = 1 << 2,
  CLX_PAGE_IS_PRESENT = 1 << 3, CLX_PAGE_IS_SWAPPED = 1 << 4, CLX_PAGE_IS_PFNZERO = 1 << 5,
  CLX_PAGE_IS_HUGE = 1 << 6, CLX_PAGE_IS_SOFT_DIRTY = 1 << 7,
  CLX_PM_SCAN_WP_MATCHING = 1 << 0, CLX_PM_SCAN_CHECK_WPASYNC = 1 << 1,
};

/// include/uapi/linux/userfaultfd.h, Linux 6.7.
struct clx_uffdio_api { uint64_t api, features, ioctls; };
struct clx_uffdio_register { uint64_t start, len, mode, ioctls; };
struct clx_uffdio_writeprotect { uint64_t start, len, mode; };
struct clx_uffd_msg { uint8_t event, r1; uint16_t r2; uint32_t r3; uint64_t a, b, c; };
extern const unsigned long clx_UFFDIO_API, clx_UFFDIO_REGISTER, clx_UFFDIO_UNREGISTER, clx_UFFDIO_WRITEPROTECT;
enum {
  CLX_UFFD_EVENT_PAGEFAULT = 0x12, CLX_UFFD_EVENT_FORK = 0x13, CLX_UFFD_EVENT_REMAP = 0x14,
  CLX_UFFD_EVENT_REMOVE = 0x15, CLX_UFFD_EVENT_UNMAP = 0x16,
  CLX_UFFD_FEATURE_EVENT_FORK = 1 << 1, CLX_UFFD_FEATURE_EVENT_REMAP = 1 << 2,
  CLX_UFFD_FEATURE_EVENT_REMOVE = 1 << 3, CLX_UFFD_FEATURE_EVENT_UNMAP = 1 << 6,
  CLX_UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12, CLX_UFFD_FEATURE_WP_UNPOPULATED = 1 << 13,
  CLX_UFFD_FEATURE_WP_ASYNC = 1 << 15,
  CLX_UFFDIO_REGISTER_MODE_WP = 1 << 1,
};

// ---- Synchronisation through shared memory --------------------------------------------------------------------

uint32_t clx_load_acquire(const uint32_t *word);
void clx_store_release(uint32_t *word, uint32_t value);
/// Waits while *word == expected, at most timeout_ns (shared futex): 0, -EAGAIN, -ETIMEDOUT or -EINTR.
int clx_futex_wait(const uint32_t *word, uint32_t expected, int64_t timeout_ns);
int clx_futex_wake(const uint32_t *word);

// ---- Waiting ---------------------------------------------------------------------------------------------------

/// ppoll(2), at most timeout_ns: the number of descriptors with events or -errno.
int clx_poll(struct pollfd *entries, unsigned count, int64_t timeout_ns);

// ---- The injected blob and the stub (blob.S) -------------------------------------------------------------------

/// One system call of a batch, see blob.S.
struct clx_call {
  uint64_t number;
  uint64_t arguments[6];
  int64_t result;
  uint64_t references;   // bit i: argument i is the index of an earlier call whose result to take;
                         // bit 8+i: argument i is the address of a 32-bit value to take
  uint64_t flags;        // CLX_CALL_MUST: the batch ends here if it fails
};
enum { CLX_CALL_MUST = 1, CLX_END_TRAP = 0, CLX_END_RESUME = 1 };
struct clx_batch {
  uint32_t done, reserved;
  uint64_t count, executed;
  uint64_t ending;       // CLX_END_*
  uint64_t frame;        // CLX_END_RESUME: address of a signal frame that continues the program
  int64_t linger_seconds, linger_nanoseconds;
  uint64_t unused;
  struct clx_call calls[];
};
enum { CLX_BATCH_HEADER = 64, CLX_CALL_SIZE = 80 };
enum { CLX_CODE_BLOB_START, CLX_CODE_BLOB_END, CLX_CODE_STUB_START, CLX_CODE_STUB_END, CLX_CODE_STUB_SYSCALL };
/// The address of a symbol of blob.S (arrays of unknown length are not imported by Swift).
const uint8_t *clx_code(int symbol);

#endif
