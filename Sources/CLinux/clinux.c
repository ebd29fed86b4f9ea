// See include/clinux.h.
#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESULT(call) ({ long r_ = (call); r_ < 0 ? -(long)errno : r_; })

_Static_assert(sizeof(struct clx_page_region) == 24, "struct page_region");
_Static_assert(sizeof(struct clx_pm_scan_arg) == 96, "struct pm_scan_arg");
_Static_assert(sizeof(struct clx_uffd_msg) == sizeof(struct uffd_msg), "struct uffd_msg");
_Static_assert(sizeof(struct clx_uffdio_register) == sizeof(struct uffdio_register), "struct uffdio_register");
_Static_assert(sizeof(struct clx_batch) == CLX_BATCH_HEADER, "struct clx_batch, see blob.S");
_Static_assert(sizeof(struct clx_call) == CLX_CALL_SIZE, "struct clx_call, see blob.S");
_Static_assert(offsetof(struct clx_call, result) == 56 && offsetof(struct clx_call, flags) == 72, "see blob.S");

const unsigned long clx_PAGEMAP_SCAN = _IOWR('f', 16, struct clx_pm_scan_arg);
const unsigned long clx_UFFDIO_API = UFFDIO_API;
const unsigned long clx_UFFDIO_REGISTER = UFFDIO_REGISTER;
const unsigned long clx_UFFDIO_UNREGISTER = UFFDIO_UNREGISTER;
const unsigned long clx_UFFDIO_WRITEPROTECT = UFFDIO_WRITEPROTECT;

// ---- Processes -----------------------------------------------------------------------------------------------

long clx_syscall(long number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5) {
  return RESULT(syscall(number, a0, a1, a2, a3, a4, a5));
}

int clx_gettid(void) { return (int)syscall(SYS_gettid); }
int clx_tgkill(int pid, int tid, int signal) { return RESULT(syscall(SYS_tgkill, pid, tid, signal)); }
int clx_pidfd_open(int pid, unsigned flags) { return RESULT(syscall(SYS_pidfd_open, pid, flags)); }
int clx_pidfd_getfd(int pidfd, int fd) { return RESULT(syscall(SYS_pidfd_getfd, pidfd, fd, 0)); }
// include/uapi/linux/pidfd.h, newer than the distribution's headers.
struct pidfd_info_ {
  uint64_t mask, cgroup;
  uint32_t pid, tgid, ppid, ids[8];
  int32_t exit_code;
};
#define PIDFD_GET_INFO_ _IOWR(0xFF, 11, struct pidfd_info_)
#define PIDFD_INFO_EXIT_ (1ull << 3)
_Static_assert(sizeof(struct pidfd_info_) == 64, "PIDFD_INFO_SIZE_VER0");

int clx_pidfd_exit(int pidfd, int *status) {
  struct pidfd_info_ info = {.mask = PIDFD_INFO_EXIT_};
  if (ioctl(pidfd, PIDFD_GET_INFO_, &info) < 0) return -errno;
  if (!(info.mask & PIDFD_INFO_EXIT_)) return -EAGAIN;
  *status = info.exit_code;
  return 0;
}
int clx_pidfd_send_signal(int pidfd, int signal) {
  return RESULT(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}
int clx_waitpid(int pid, int *status, int options) { return RESULT(waitpid(pid, status, options)); }
int clx_kcmp(int pid1, int pid2, int type, uint64_t a, uint64_t b) {
  return RESULT(syscall(SYS_kcmp, pid1, pid2, type, a, b));
}
int clx_prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  return RESULT(prctl(option, a, b, c, d));
}
int clx_get_robust_list(int tid, uint64_t *head, uint64_t *length) {
  return RESULT(syscall(SYS_get_robust_list, tid, head, length));
}
int clx_prlimit(int pid, int resource, uint64_t new_soft, uint64_t new_hard, int set, uint64_t *soft, uint64_t *hard) {
  struct rlimit64 fresh = {new_soft, new_hard}, old = {0};
  int result = RESULT(syscall(SYS_prlimit64, pid, resource, set ? &fresh : NULL, &old));
  *soft = old.rlim_cur;
  *hard = old.rlim_max;
  return result;
}
int clx_sched_get(int tid, int *policy, int *priority) {
  struct sched_param parameters = {0};
  int result = RESULT(sched_getscheduler(tid));
  if (result < 0) return result;
  *policy = result;
  result = RESULT(sched_getparam(tid, &parameters));
  *priority = parameters.sched_priority;
  return result;
}
int clx_sched_set(int tid, int policy, int priority) {
  struct sched_param parameters = {.sched_priority = priority};
  return RESULT(sched_setscheduler(tid, policy, &parameters));
}
int clx_getpriority(int tid, int *nice) {
  errno = 0;
  *nice = getpriority(PRIO_PROCESS, tid);
  return errno ? -errno : 0;
}
int clx_setpriority(int tid, int nice) { return RESULT(setpriority(PRIO_PROCESS, tid, nice)); }
int clx_ioprio_get(int tid) { return RESULT(syscall(SYS_ioprio_get, 1, tid)); }
int clx_setns(int fd, int type) { return RESULT(setns(fd, type)); }
int clx_unshare(int flags) { return RESULT(unshare(flags)); }
int clx_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  return RESULT(mount(source, target, type, flags, data));
}
int clx_umount(const char *target, int flags) { return RESULT(umount2(target, flags)); }
long clx_find(const void *text, size_t size, const void *part, size_t length) {
  const char *found = memmem(text, size, part, length);
  return found ? found - (const char *)text : -1;
}

// Only async-signal-safe calls stand between the clone and the exec.
static void become(const struct clx_spawn_plan *plan, int report) {
  int source[3];
  if (plan->new_session) setsid();
  if (plan->die_with_parent) prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (plan->netns >= 0 && setns(plan->netns, CLONE_NEWNET) < 0) goto failed;
  if (plan->cwd && chdir(plan->cwd) < 0) goto failed;
  for (int i = 0; i < 3; i++) {
    int fd = plan->fds[i] >= 0 ? plan->fds[i] : open("/dev/null", O_RDWR | O_CLOEXEC);
    source[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (source[i] < 0) goto failed;
  }
  for (int i = 0; i < 3; i++)
    if (dup2(source[i], i) < 0) goto failed;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execve(plan->path, plan->argv, plan->envp);
failed:;
  int error = errno;
  (void)!write(report, &error, sizeof error);
  _exit(127);
}

int clx_spawn(const struct clx_spawn_plan *plan, int *pidfd) {
  int report[2], error = 0;
  if (pipe2(report, O_CLOEXEC) < 0) return -errno;
  // The reports' own descriptors must not be among 0, 1 and 2, which the child replaces.
  int writer = fcntl(report[1], F_DUPFD_CLOEXEC, 3);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  struct clone_args arguments = {
      .flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .pidfd = (uint64_t)pidfd, .exit_signal = SIGCHLD};
  long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) become(plan, writer);
  int failure = errno;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  close(writer);
  close(report[1]);
  if (pid < 0) {
    close(report[0]);
    return -failure;
  }
  ssize_t n;
  do n = read(report[0], &error, sizeof error);
  while (n < 0 && errno == EINTR);
  close(report[0]);
  if (n == sizeof error) {
    waitpid((pid_t)pid, NULL, 0);
    close(*pidfd);
    return -error;
  }
  return (int)pid;
}

// ---- ptrace --------------------------------------------------------------------------------------------------

long clx_ptrace(long request, int tid, uint64_t address, uint64_t data) {
  return RESULT(syscall(SYS_ptrace, request, tid, address, data));
}
long clx_ptrace_ptr(long request, int tid, uint64_t address, void *data) {
  return RESULT(syscall(SYS_ptrace, request, tid, address, data));
}

// ---- Memory --------------------------------------------------------------------------------------------------

ssize_t clx_process_vm_readv(int pid, const struct iovec *local, unsigned long local_count,
                             const struct iovec *remote, unsigned long remote_count) {
  return RESULT(process_vm_readv(pid, local, local_count, remote, remote_count, 0));
}
ssize_t clx_process_vm_writev(int pid, const struct iovec *local, unsigned long local_count,
                              const struct iovec *remote, unsigned long remote_count) {
  return RESULT(process_vm_writev(pid, local, local_count, remote, remote_count, 0));
}
ssize_t clx_pread(int fd, void *buffer, size_t size, uint64_t offset) {
  return RESULT(pread(fd, buffer, size, (off_t)offset));
}
ssize_t clx_pwrite(int fd, const void *buffer, size_t size, uint64_t offset) {
  return RESULT(pwrite(fd, buffer, size, (off_t)offset));
}
int clx_eventfd(void) { return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
ssize_t clx_tee(int from, int to, size_t size) { return RESULT(tee(from, to, size, SPLICE_F_NONBLOCK)); }
int clx_memfd_create(const char *name, unsigned flags) { return RESULT(memfd_create(name, flags)); }

// ---- ioctl ---------------------------------------------------------------------------------------------------

int clx_ioctl(int fd, unsigned long request, void *argument) { return RESULT(ioctl(fd, request, argument)); }
int clx_ioctl_value(int fd, unsigned long request, uint64_t argument) {
  return RESULT(ioctl(fd, request, argument));
}
int clx_fcntl(int fd, int command, long argument) { return RESULT(fcntl(fd, command, argument)); }

// ---- Synchronisation -----------------------------------------------------------------------------------------

uint32_t clx_load_acquire(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
void clx_store_release(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
int clx_futex_wait(const uint32_t *word, uint32_t expected, int64_t timeout_ns) {
  struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  return RESULT(syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0));
}
int clx_futex_wake(const uint32_t *word) { return RESULT(syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0)); }

// ---- Code ----------------------------------------------------------------------------------------------------

extern const uint8_t clx_blob_start[], clx_blob_end[], clx_stub_start[], clx_stub_end[], clx_stub_syscall[];

const uint8_t *clx_code(int symbol) {
  const uint8_t *const symbols[] = {clx_blob_start, clx_blob_end, clx_stub_start, clx_stub_end, clx_stub_syscall};
  return symbols[symbol];
}

// ---- Waiting ---------------------------------------------------------------------------------------------------

int clx_poll(struct pollfd *entries, unsigned count, int64_t timeout_ns) {
  struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  return RESULT(ppoll(entries, count, &timeout, NULL));
}
