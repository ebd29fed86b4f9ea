// Keeps one kind of state that moves along, and checks it when asked: keeper KIND says that it is ready; each SIGUSR1 asks
// for a line, {"state":"ok"} or what is not as it was left.
// Exit status 4: this kernel, or these privileges, do not let the state be made.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNAVAILABLE = 4, PAGE = 4096 };

static char wrong[512];
#define WRONG(...) (snprintf(wrong, sizeof wrong, __VA_ARGS__), false)

// -- names: of threads, which are bytes and need not be text

static const char *const names[] = {"gr\xc3\xb6\xc3\x9f" "enaend\xc3\xb6rung", ") R 1 1 (", "two\nlines", "", "\xff\xfe raw", "a b\tc"};
enum { NAMES = sizeof names / sizeof *names };
static int named[NAMES];

static void *bear(void *index) {
  prctl(PR_SET_NAME, names[(intptr_t)index]);
  named[(intptr_t)index] = (int)syscall(SYS_gettid);
  for (;;) pause();
  return NULL;
}
static bool make_names(void) {
  pthread_t thread;
  for (intptr_t index = 0; index < NAMES; index++) {
    pthread_create(&thread, NULL, bear, (void *)index);
    while (!((volatile int *)named)[index]) usleep(1000);
  }
  return true;
}
static bool check_names(void) {
  char path[64], found[64], wanted[17];
  for (int index = 0; index < NAMES; index++) {
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", named[index]);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(found, 1, sizeof found, file) : 0;
    if (file) fclose(file);
    int size = snprintf(wanted, sizeof wanted, "%.15s\n", names[index]);
    if (length != (size_t)size || memcmp(found, wanted, length)) return WRONG("thread %d has another name", index);
  }
  return true;
}

// -- folder: to work in, with such a name

static const char folder[] = "/\xff folder\nof two lines";
static bool make_folder(void) { return !mkdir(folder, 0755) && !chdir(folder); }
static bool check_folder(void) {
  char now[PAGE];
  return getcwd(now, sizeof now) && !strcmp(now, folder) ? true : WRONG("another working folder");
}

// -- continue: a SIGCONT that waits behind the mask

static bool make_continue(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCONT);
  return !sigprocmask(SIG_BLOCK, &set, NULL) && !kill(getpid(), SIGCONT);
}
static bool check_continue(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCONT);
  if (sigtimedwait(&set, NULL, &(struct timespec){0}) != SIGCONT) return WRONG("SIGCONT does not wait");
  return !kill(getpid(), SIGCONT);
}

// -- limits: all at what is in use, or little above

static struct rlimit limits[RLIM_NLIMITS];
static char *locked;
static int waiting;

static unsigned long status_number(const char *name) {
  char line[256];
  unsigned long found = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, name, strlen(name))) found = strtoul(line + strlen(name) + 1, NULL, 10);
  if (file) fclose(file);
  return found;
}
static bool set_limit(int which, unsigned long value) {
  return !setrlimit(which, &(struct rlimit){.rlim_cur = value, .rlim_max = value});
}
static int count_waiting(void) {
  int count = 0;
  char line[256];
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file)) sscanf(line, "SigQ: %d", &count);
  if (file) fclose(file);
  return count;
}
static bool make_limits(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 7);
  sigprocmask(SIG_BLOCK, &set, NULL);
  locked = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (locked == MAP_FAILED || mlock(locked, 1 << 20)) return false;
  memset(locked, 7, 1 << 20);
  // Those of a whole machine's user count together: other signals that wait are few.
  if (!set_limit(RLIMIT_SIGPENDING, (unsigned long)count_waiting() + 40)) return false;
  while (waiting < 1000 && !sigqueue(getpid(), SIGRTMIN + 7, (union sigval){.sival_int = waiting})) waiting++;
  fclose(fopen("/proc/self/status", "r"));  // The library's own memory is there by now.
  bool done = set_limit(RLIMIT_AS, status_number("VmSize:") * 1024 + (6 << 20)) &&
             set_limit(RLIMIT_DATA, status_number("VmData:") * 1024 + (1 << 20)) && set_limit(RLIMIT_STACK, 256 * 1024) &&
             set_limit(RLIMIT_MEMLOCK, 64 * 1024) && set_limit(RLIMIT_FSIZE, 1 << 20) && set_limit(RLIMIT_NPROC, 1) &&
             set_limit(RLIMIT_NOFILE, 32) && set_limit(RLIMIT_CORE, 0);
  for (int which = 0; which < RLIM_NLIMITS; which++) getrlimit(which, &limits[which]);
  return done && waiting > 0;
}
static bool check_limits(void) {
  for (int which = 0; which < RLIM_NLIMITS; which++) {
    struct rlimit now;
    getrlimit(which, &now);
    if (now.rlim_cur != limits[which].rlim_cur || now.rlim_max != limits[which].rlim_max)
      return WRONG("limit %d is %lu, %lu", which, (unsigned long)now.rlim_cur, (unsigned long)now.rlim_max);
  }
  for (int byte = 0; byte < 1 << 20; byte++)
    if (locked[byte] != 7) return WRONG("locked memory changed");
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 7);
  for (int number = 0; number < waiting; number++) {
    siginfo_t info;
    if (sigtimedwait(&set, &info, &(struct timespec){0}) < 0) return WRONG("signal %d of %d is gone", number, waiting);
    if (info.si_value.sival_int != number) return WRONG("signal %d came as %d", info.si_value.sival_int, number);
  }
  waiting = 0;
  return true;
}

// -- speculation: how the processor may run ahead in this thread, and in another

static long state_of(int which) { return prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0); }
static bool make_speculation(void) {
  return !prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0) &&
         state_of(PR_SPEC_STORE_BYPASS) == (PR_SPEC_PRCTL | PR_SPEC_DISABLE);
}
static bool check_speculation(void) {
  return state_of(PR_SPEC_STORE_BYPASS) == (PR_SPEC_PRCTL | PR_SPEC_DISABLE) ? true : WRONG("speculation is as at the start");
}

// -- child: ends by itself after a second, and is waited for

static bool make_child(void) {
  pid_t child = fork();
  if (!child) _exit(usleep(1200 * 1000));
  return child > 0;
}
static bool check_child(void) {
  int status = 0;
  return wait(&status) == -1 && errno == ECHILD ? true : WRONG("a child is left");
}

// -- execute: becomes another program with SIGUSR2

static void execute(int signal) {
  sigset_t none;
  (void)signal, sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execl("/proc/self/exe", "keeper", "nothing", NULL);
}
static bool make_execute(void) { return signal(SIGUSR2, execute) != SIG_ERR; }
static bool fine(void) { return true; }

static const struct {
  const char *name;
  bool (*make)(void), (*check)(void);
} kinds[] = {{"names", make_names, check_names}, {"folder", make_folder, check_folder},
             {"continue", make_continue, check_continue}, {"limits", make_limits, check_limits}, {"speculation", make_speculation, check_speculation},
             {"child", make_child, check_child}, {"execute", make_execute, fine}, {"nothing", fine, fine}};

static volatile sig_atomic_t asked;
static void ask(int signal) { (void)signal, asked = 1; }
static void collect(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {}
}

int main(int count, char **arguments) {
  signal(SIGUSR1, ask);
  signal(SIGCHLD, collect);
  for (size_t index = 0; count == 2 && index < sizeof kinds / sizeof *kinds; index++) {
    if (strcmp(kinds[index].name, arguments[1])) continue;
    if (!kinds[index].make()) {
      perror(arguments[1]);
      return UNAVAILABLE;
    }
    dprintf(STDOUT_FILENO, "{\"ready\":\"keeper\"}\n");
    for (;;) {
      usleep(10 * 1000);
      if (!asked) continue;
      asked = 0;
      bool right = kinds[index].check();
      dprintf(STDOUT_FILENO, right ? "{\"state\":\"ok\"}\n" : "{\"state\":\"wrong\",\"what\":\"%s\"}\n", wrong);
    }
  }
  dprintf(STDERR_FILENO, "usage: keeper KIND\n");
  return 2;
}
