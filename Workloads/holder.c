// Holds one kind of state that a migration has to refuse by name: holder KIND makes it, says that it is ready, and waits.
// `lines` holds nothing: it prints numbers, one a line, for ever. `parent` holds nothing: it has a child at SIGUSR1.
// Exit status 4: this kernel, or these privileges, do not let it be made.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, UNAVAILABLE = 4, MSEAL = 462, GUARD_INSTALL = 102, MEMORY_MERGE = 67, DROPPABLE = 8 };

static long map(long size, int flags) {
  void *at = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  if (at == MAP_FAILED) return -1;
  if (!(flags & DROPPABLE)) memset(at, 1, PAGE);
  return (long)at;
}
static long io_uring(void) { return syscall(SYS_io_uring_setup, 4, &(struct io_uring_params){0}); }
static long memfd(void) { return memfd_create("held", 0); }
static long memfd_mapping(void) {
  int file = memfd_create("held", 0);
  if (file < 0 || ftruncate(file, PAGE) || mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED) return -1;
  return close(file);
}
static long file_mapping(void) {
  int file = open("/held", O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, PAGE) || mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED) return -1;
  return close(file);
}
static long inotify(void) { return inotify_init1(0); }
static long signal_descriptor(void) { return signalfd(-1, &(sigset_t){0}, 0); }
static long timer_descriptor(void) { return timerfd_create(CLOCK_MONOTONIC, 0); }
static long pidfd(void) { return syscall(SYS_pidfd_open, getpid(), 0); }
static long unix_pair(void) { return socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){0}); }
static long udp(void) { return socket(AF_INET, SOCK_DGRAM, 0); }
static long netlink(void) { return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE); }
static long aio(void) { return syscall(SYS_io_setup, 8, &(aio_context_t){0}); }
static long perf(void) {
  struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_TASK_CLOCK};
  event.exclude_kernel = 1;
  return syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
}
static long userfaultfd(void) { return syscall(SYS_userfaultfd, 1); }
static long guard(void) { return madvise((void *)(map(4 * PAGE, MAP_PRIVATE) + PAGE), PAGE, GUARD_INSTALL); }
static long sealed(void) { return syscall(MSEAL, map(PAGE, MAP_PRIVATE), PAGE, 0); }
static long droppable(void) { return map(PAGE, DROPPABLE); }
static long key(void) {
  long key = syscall(SYS_pkey_alloc, 0, 0);
  return key < 0 ? key : syscall(SYS_pkey_mprotect, map(PAGE, MAP_PRIVATE), PAGE, PROT_READ, key);
}
static long huge(void) { return map(2 << 20, MAP_PRIVATE | MAP_HUGETLB); }
static long system_v(void) {
  int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
  return id < 0 || shmat(id, NULL, 0) == (void *)-1 ? -1 : shmctl(id, IPC_RMID, NULL);
}
static long twice(void) {
  long one = map(PAGE, MAP_SHARED);
  return mremap((void *)one, 0, PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
}
static long filter(void) {
  struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){1, all});
}
static long tsc(void) { return prctl(PR_SET_TSC, PR_TSC_SIGSEGV); }
static long no_exec(void) { return prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0); }
static long merge(void) { return prctl(MEMORY_MERGE, 1, 0, 0, 0); }
static long memory_errors(void) { return prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0); }
static long numa(void) { return syscall(SYS_set_mempolicy, 3 /* MPOL_INTERLEAVE */, &(unsigned long){1}, 64); }
static long range_policy(void) {
  return syscall(SYS_mbind, map(PAGE, MAP_PRIVATE), PAGE, 3 /* MPOL_INTERLEAVE */, &(unsigned long){1}, 64, 0);
}
static long lock_future(void) { return mlockall(MCL_FUTURE); }
static long child(void) {
  long pid = fork();
  while (!pid) pause();
  return pid;
}
static void bear(int signal) {
  (void)signal;
  if (fork()) return;
  for (;;) pause();
}
// Has a child when it is told to.
static long parent(void) { return sigaction(SIGUSR1, &(struct sigaction){.sa_handler = bear}, NULL); }
static long zombie(void) {
  long pid = fork();
  if (!pid) _exit(0);
  return usleep(100 * 1000) < 0 ? -1 : pid;
}
static void *end_with_timer(void *unused) {
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
  event._sigev_un._tid = (int)syscall(SYS_gettid);
  timer_t timer;
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  return unused;
}
static long dead_timer(void) {
  pthread_t thread;
  return pthread_create(&thread, NULL, end_with_timer, NULL) || pthread_join(thread, NULL) ? -1 : 0;
}
static void *stay_on(void *unused) {
  for (;;) pause();
  return unused;
}
static long leader(void) {
  pthread_t thread;
  dprintf(STDOUT_FILENO, "{\"ready\":\"holder\"}\n");
  pthread_create(&thread, NULL, stay_on, NULL);
  pthread_exit(NULL);
}
static long no_room(void) {
  char line[256];
  unsigned long size = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, file)) sscanf(line, "VmSize: %lu", &size);
  return setrlimit(RLIMIT_AS, &(struct rlimit){size * 1024, size * 1024});
}
static long dispatch(void) { return prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, ~0UL >> 1, 0); }
static long trap(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTRAP);
  return sigprocmask(SIG_BLOCK, &set, NULL) || kill(getpid(), SIGTRAP) ? -1 : 0;
}
static long thread_keyring(void) { return syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -1, 1); }
static long session_key(void) { return syscall(SYS_add_key, "user", "held", "content", 7, -3); }
static long message_queue(void) { return syscall(SYS_mq_open, "held", O_CREAT | O_RDWR, 0600, NULL); }
static long closed_queue(void) {
  long queue = message_queue();
  return queue < 0 ? -1 : close((int)queue);
}
static long messages(void) { return msgget(IPC_PRIVATE, IPC_CREAT | 0600); }
static long semaphores(void) { return semget(IPC_PRIVATE, 1, IPC_CREAT | 0600); }
static long detached(void) { return shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600); }
static long lock(void) { return flock(open("/held", O_RDWR | O_CREAT, 0600), LOCK_EX); }
static long record_lock(void) {
  return fcntl(open("/held", O_RDWR | O_CREAT, 0600), F_SETLK, &(struct flock){.l_type = F_WRLCK});
}
static long lease(void) { return fcntl(open("/held", O_RDONLY | O_CREAT, 0600), F_SETLEASE, F_RDLCK); }
static long path_only(void) { return open("/held", O_PATH | O_CREAT, 0600) < 0 ? open("/", O_PATH) : 0; }
static long secret(void) { return syscall(447 /* memfd_secret */, 0); }
static long half_read(void) {
  struct { char bytes[64]; } some;
  int folder = open("/", O_RDONLY | O_DIRECTORY);
  return folder < 0 ? -1 : syscall(SYS_getdents64, folder, &some, sizeof some);
}
static long notify(void) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGIO, &ignore, NULL);
  return fcntl(open("/", O_RDONLY | O_DIRECTORY), F_NOTIFY, DN_CREATE | DN_MULTISHOT);
}
static long pipe_again(void) {
  int ends[2];
  if (pipe(ends)) return -1;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
  return open(path, O_RDONLY | O_NONBLOCK);
}
static long deleted(void) { return open("/held", O_RDWR | O_CREAT, 0600) < 0 ? -1 : unlink("/held"); }
static long named_pipe(void) { return mkfifo("/pipe", 0600) ? -1 : open("/pipe", O_RDWR); }
static long half_pipe(void) {
  int ends[2];
  return pipe(ends) ? -1 : close(ends[0]);
}
static long asynchronous(void) {
  int ends[2];
  return pipe(ends) ? -1 : fcntl(ends[0], F_SETFL, O_ASYNC);
}
static long processor_timer(void) { return timer_create(CLOCK_PROCESS_CPUTIME_ID, NULL, &(timer_t){0}); }
static long folder(void) { return mkdir("/folder", 0700) || chdir("/folder") ? -1 : rmdir("/folder"); }
static long root(void) { return mkdir("/jail", 0755) ? -1 : chroot("/jail"); }
static long user_namespace(void) { return unshare(CLONE_NEWUSER); }
static long pid_namespace(void) { return unshare(CLONE_NEWPID); }

static long __attribute__((noreturn)) lines(void) {
  for (long line = 0;; line++) {
    dprintf(STDOUT_FILENO, "%ld\n", line);
    usleep(200);
  }
}

static int apart;
static volatile long answer = 1;
static void *stay(void *unused) {
  answer = unshare(apart);
  for (;;) pause();
  return unused;
}
static long in_thread(int what) {
  pthread_t thread;
  apart = what;
  pthread_create(&thread, NULL, stay, NULL);
  while (answer == 1) usleep(1000);
  return answer;
}
static long thread_files(void) { return in_thread(CLONE_FILES); }
static long thread_folder(void) { return in_thread(CLONE_FS); }
static long thread_network(void) { return in_thread(CLONE_NEWNET); }

static const struct {
  const char *name;
  long (*make)(void);
} kinds[] = {
    {"io_uring", io_uring}, {"memfd", memfd}, {"memfd-mapping", memfd_mapping}, {"file-mapping", file_mapping},
    {"inotify", inotify}, {"signalfd", signal_descriptor}, {"timerfd", timer_descriptor}, {"pidfd", pidfd},
    {"unix", unix_pair}, {"udp", udp}, {"netlink", netlink}, {"aio", aio}, {"perf", perf}, {"userfaultfd", userfaultfd},
    {"guard", guard}, {"sealed", sealed}, {"droppable", droppable}, {"key", key}, {"huge", huge}, {"system-v", system_v},
    {"twice", twice}, {"filter", filter}, {"tsc", tsc}, {"no-exec", no_exec}, {"merge", merge},
    {"memory-errors", memory_errors}, {"numa", numa}, {"range-policy", range_policy},
    {"lock-future", lock_future}, {"child", child}, {"lock", lock}, {"record-lock", record_lock},
    {"lease", lease}, {"path-only", path_only}, {"secret", secret}, {"half-read", half_read}, {"notify", notify},
    {"pipe-again", pipe_again}, {"deleted", deleted}, {"named-pipe", named_pipe}, {"half-pipe", half_pipe},
    {"asynchronous", asynchronous}, {"processor-timer", processor_timer}, {"folder", folder}, {"root", root},
    {"user-namespace", user_namespace}, {"pid-namespace", pid_namespace}, {"thread-files", thread_files},
    {"zombie", zombie}, {"dead-timer", dead_timer}, {"leader", leader}, {"no-room", no_room}, {"dispatch", dispatch},
    {"trap", trap}, {"thread-keyring", thread_keyring}, {"session-key", session_key}, {"closed-queue", closed_queue},
    {"messages", messages}, {"semaphores", semaphores}, {"detached", detached},
    {"thread-folder", thread_folder}, {"thread-network", thread_network}, {"parent", parent}, {"lines", lines}};

int main(int count, char **arguments) {
  for (size_t index = 0; count == 2 && index < sizeof kinds / sizeof *kinds; index++) {
    if (strcmp(kinds[index].name, arguments[1])) continue;
    if (kinds[index].make() < 0) {
      perror(arguments[1]);
      return UNAVAILABLE;
    }
    dprintf(STDOUT_FILENO, "{\"ready\":\"holder\"}\n");
    for (;;) pause();
  }
  dprintf(STDERR_FILENO, "usage: holder KIND\n");
  return 2;
}
