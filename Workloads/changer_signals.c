// Kinds of state around signals and timers.
#define _GNU_SOURCE
#include "changer.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

// -- Actions: handler, flags and mask of many signals, none of which is ever sent

static const int action_signals[] = {SIGHUP, SIGWINCH, SIGURG, SIGCONT, SIGTTIN, SIGTTOU, SIGTSTP, SIGIO, SIGPWR};
enum { ACTIONS = sizeof action_signals / sizeof *action_signals + 8 };

static int action_signal(int index) {
  int count = sizeof action_signals / sizeof *action_signals;
  return index < count ? action_signals[index] : SIGNAL_FREE + index - count;
}

static void handle_one(int signal) { changed("actions", "handler one ran for signal %d", signal); }
static void handle_other(int signal) { changed("actions", "handler two ran for signal %d", signal); }

static sigset_t random_set(struct random *random) {
  sigset_t set;
  sigemptyset(&set);
  for (int index = 0; index < ACTIONS; index++)
    if (random_below(random, 2)) sigaddset(&set, action_signal(index));
  return set;
}

static bool same_set(const sigset_t *one, const sigset_t *other, int *where) {
  for (*where = 1; *where <= SIGRTMAX; ++*where) {
    bool reserved = *where > SIGSYS && *where < SIGRTMIN;
    if (!reserved && sigismember(one, *where) != sigismember(other, *where)) return false;
  }
  return true;
}

struct actions {
  struct sigaction set[ACTIONS];
};

static void change_actions(void *state, struct random *random) {
  static void (*const handlers[])(int) = {SIG_DFL, SIG_IGN, handle_one, handle_other};
  static const int flags[] = {SA_RESTART, SA_NODEFER, SA_RESETHAND, SA_ONSTACK, SA_SIGINFO, SA_NOCLDSTOP};
  struct actions *actions = state;
  for (int index = 0; index < ACTIONS; index++) {
    struct sigaction *action = &actions->set[index];
    *action = (struct sigaction){.sa_handler = handlers[random_below(random, 4)], .sa_mask = random_set(random)};
    for (int flag = 0; flag < 6; flag++)
      if (random_below(random, 2)) action->sa_flags |= flags[flag];
    sigaction(action_signal(index), action, NULL);
  }
}

static void check_actions(void *state) {
  enum { RESTORER = 0x04000000 };  // The library's own addition.
  struct actions *actions = state;
  for (int index = 0, where; index < ACTIONS; index++) {
    struct sigaction found, *wanted = &actions->set[index];
    int signal = action_signal(index);
    sigaction(signal, NULL, &found);
    if (found.sa_handler != wanted->sa_handler)
      changed("actions", "signal %d: set handler %p, found %p", signal, (void *)wanted->sa_handler,
              (void *)found.sa_handler);
    expect("actions", "flags", wanted->sa_flags, found.sa_flags & ~RESTORER);
    if (!same_set(&wanted->sa_mask, &found.sa_mask, &where))
      changed("actions", "signal %d: the mask differs for signal %d", signal, where);
  }
}

static void spoil_actions(void *state) {
  struct actions *actions = state;
  struct sigaction action = actions->set[3];
  action.sa_flags ^= SA_RESTART;
  sigaction(action_signal(3), &action, NULL);
}

// -- The mask of a thread

static void change_mask(void *state, struct random *random) {
  sigset_t *mask = state, free = random_set(random);
  pthread_sigmask(SIG_BLOCK, NULL, mask);
  for (int index = 0; index < ACTIONS; index++)
    if (sigismember(&free, action_signal(index))) sigaddset(mask, action_signal(index));
    else sigdelset(mask, action_signal(index));
  pthread_sigmask(SIG_SETMASK, mask, NULL);
}

static void check_mask(void *state) {
  sigset_t found;
  int where;
  pthread_sigmask(SIG_BLOCK, NULL, &found);
  if (!same_set(state, &found, &where)) changed("mask", "signal %d: not as set", where);
}

static void spoil_mask(void *state) {
  sigset_t set = *(sigset_t *)state;
  if (sigismember(&set, SIGURG)) sigdelset(&set, SIGURG);
  else sigaddset(&set, SIGURG);
  pthread_sigmask(SIG_SETMASK, &set, NULL);
}

// -- The alternate stack of a thread

struct stack {
  stack_t set;
  char *memory;
};

static bool prepare_stack(void *state, struct random *random) {
  (void)random;
  ((struct stack *)state)->memory = map_memory(256 * 1024, 0x02 /* MAP_PRIVATE */);
  return true;
}

static void change_stack(void *state, struct random *random) {
  enum { AUTODISARM = 1u << 31 };
  struct stack *stack = state;
  stack->set = (stack_t){.ss_sp = stack->memory + random_below(random, 32) * PAGE,
                         .ss_size = 64 * 1024 + random_below(random, 64) * 512,
                         .ss_flags = random_below(random, 2) ? (int)AUTODISARM : 0};
  if (random_below(random, 4) == 0) stack->set = (stack_t){.ss_flags = SS_DISABLE};
  if (sigaltstack(&stack->set, NULL)) changed("stack", "refused: %s", strerror(errno));
}

static void check_stack(void *state) {
  struct stack *stack = state;
  stack_t found;
  sigaltstack(NULL, &found);
  expect("stack", "flags", stack->set.ss_flags, found.ss_flags);
  if (stack->set.ss_flags == SS_DISABLE) return;
  expect("stack", "address", (long long)(uintptr_t)stack->set.ss_sp, (long long)(uintptr_t)found.ss_sp);
  expect("stack", "size", (long long)stack->set.ss_size, (long long)found.ss_size);
}

static void spoil_stack(void *state) {
  struct stack *stack = state;
  stack_t other = {.ss_sp = stack->memory + PAGE * 33, .ss_size = 70000};
  sigaltstack(&other, NULL);
}

// -- Pending signals, in their order and with their values

struct pending {
  unsigned count;
  uint64_t first;
  bool plain;  // A standard signal, which does not queue, is pending too.
};

enum { PLAIN = SIGXFSZ };

static void send_value(bool to_thread, int signal, uint64_t value) {
  siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = (void *)(uintptr_t)value;
  if (to_thread ? syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, &info)
                : syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info))
    changed("pending", "queueing signal %d: %s", signal, strerror(errno));
}

static void change_pending(struct pending *pending, struct random *random, bool to_thread, int signal) {
  pending->count = (unsigned)random_below(random, 6);
  pending->first = random_next(random);
  for (unsigned index = 0; index < pending->count; index++) send_value(to_thread, signal, pending->first + index);
}

// Takes one pending signal if there is any. The library's sigtimedwait would show SI_TKILL as SI_USER.
static int take(int signal, siginfo_t *info) {
  sigset_t set;
  struct timespec at_once = {0, 0};
  sigemptyset(&set);
  sigaddset(&set, signal);
  return (int)syscall(SYS_rt_sigtimedwait, &set, info, &at_once, 8);
}

static void check_pending(const struct pending *pending, const char *kind, int signal) {
  siginfo_t info;
  for (unsigned index = 0; index < pending->count; index++) {
    if (take(signal, &info) != signal) changed(kind, "%u signals queued, %u found", pending->count, index);
    expect(kind, "value", (long long)(pending->first + index), (long long)(uintptr_t)info.si_value.sival_ptr);
    expect(kind, "code", SI_QUEUE, info.si_code);
    expect(kind, "sender", getpid(), info.si_pid);
    expect(kind, "user", getuid(), info.si_uid);
  }
  if (take(signal, &info) == signal) changed(kind, "%u signals queued, more found", pending->count);
}

static void change_thread_pending(void *state, struct random *random) {
  struct pending *pending = state;
  change_pending(pending, random, true, SIGNAL_THREAD);
  if ((pending->plain = random_below(random, 2))) syscall(SYS_tgkill, getpid(), gettid(), PLAIN);
}

static void check_thread_pending(void *state) {
  struct pending *pending = state;
  siginfo_t info;
  check_pending(pending, "pending-thread", SIGNAL_THREAD);
  bool found = take(PLAIN, &info) == PLAIN;
  expect("pending-thread", "standard signal", pending->plain, found);
  if (found) expect("pending-thread", "code of the standard signal", SI_TKILL, info.si_code);
}

static void change_process_pending(void *state, struct random *random) {
  change_pending(state, random, false, SIGNAL_PROCESS);
}
static void check_process_pending(void *state) { check_pending(state, "pending-process", SIGNAL_PROCESS); }
static void spoil_thread_pending(void *state) { (void)state, send_value(true, SIGNAL_THREAD, 1); }
static void spoil_process_pending(void *state) { (void)state, send_value(false, SIGNAL_PROCESS, 1); }

// -- Interval timers: far from expiring, the time left only ever falls

struct interval_timers {
  struct itimerval set[3];
  uint64_t left[3], since;
};

static uint64_t of_timeval(struct timeval time) {
  return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_usec * MICROSECOND;
}

static void change_interval_timers(void *state, struct random *random) {
  struct interval_timers *timers = state;
  timers->since = now_ns();
  for (int which = 0; which < 3; which++) {
    long left = random_below(random, 4) ? 5000 + (long)random_below(random, 5000) : 0;
    timers->set[which] = (struct itimerval){{(long)random_below(random, 100000), 4000}, {left, 500}};
    if (!left) timers->set[which] = (struct itimerval){0};
    setitimer(which, &timers->set[which], NULL);
    timers->left[which] = of_timeval(timers->set[which].it_value);
  }
}

static void check_interval_timers(void *state) {
  static const char *const names[] = {"ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"};
  struct interval_timers *timers = state;
  for (int which = 0; which < 3; which++) {
    struct itimerval found;
    getitimer(which, &found);
    uint64_t left = of_timeval(found.it_value), slack = 20 * MILLISECOND, passed = now_ns() - timers->since + slack;
    if (which) passed = passed * (uint64_t)sysconf(_SC_NPROCESSORS_CONF) + slack;  // Several threads burn time.
    expect("itimers", names[which], (long long)of_timeval(timers->set[which].it_interval),
           (long long)of_timeval(found.it_interval));
    if (left > timers->left[which] + slack || left + passed < timers->left[which])
      changed("itimers", "%s: %llu ns were left, now %llu after %llu", names[which],
              (unsigned long long)timers->left[which], (unsigned long long)left, (unsigned long long)passed);
  }
}

static void spoil_interval_timers(void *state) {
  (void)state;
  setitimer(ITIMER_REAL, &(struct itimerval){{1, 0}, {20000, 0}}, NULL);
}

// -- POSIX timers far from expiring, armed and disarmed, made and deleted

enum { TIMERS = 4 };

struct far_timers {
  struct far_timer {
    bool exists, absolute;
    timer_t timer;
    clockid_t clock;
    struct itimerspec set;
    uint64_t since;
  } timers[TIMERS];
};

static uint64_t of_timespec(struct timespec time) { return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec; }

static void make_timer(struct far_timer *timer, struct random *random) {
  static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME};
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL_FAR};
  event._sigev_un._tid = gettid();
  if (random_below(random, 2)) event.sigev_notify = SIGEV_SIGNAL;
  timer->clock = clocks[random_below(random, 3)];
  if (timer_create(timer->clock, &event, &timer->timer)) changed("timers", "making one: %s", strerror(errno));
  timer->exists = true;
  timer->set = (struct itimerspec){0};
}

static void change_timer(struct far_timer *timer, struct random *random) {
  if (timer->exists && random_below(random, 8) == 0) {
    if (timer_delete(timer->timer)) changed("timers", "deleting one: %s", strerror(errno));
    timer->exists = false;
  } else if (!timer->exists) make_timer(timer, random);
  if (!timer->exists || random_below(random, 2)) return;
  uint64_t value = random_below(random, 3) ? (1000 + random_below(random, 1000)) * SECOND : 0;
  timer->set = (struct itimerspec){timespec_of(value ? random_below(random, SECOND * 100) : 0), timespec_of(value)};
  timer->since = now_ns();
  timer_settime(timer->timer, 0, &timer->set, NULL);
}

static void change_far_timers(void *state, struct random *random) {
  struct far_timers *far = state;
  for (int index = 0; index < TIMERS; index++) change_timer(&far->timers[index], random);
}

static void check_far_timers(void *state) {
  struct far_timers *far = state;
  for (int index = 0; index < TIMERS; index++) {
    struct far_timer *timer = &far->timers[index];
    struct itimerspec found;
    if (!timer->exists) continue;
    if (timer_gettime(timer->timer, &found)) changed("timers", "timer %d is gone: %s", index, strerror(errno));
    uint64_t wanted = of_timespec(timer->set.it_value), left = of_timespec(found.it_value);
    uint64_t slack = 50 * MILLISECOND, passed = now_ns() - timer->since + slack;
    expect("timers", "interval", (long long)of_timespec(timer->set.it_interval),
           (long long)of_timespec(found.it_interval));
    if ((!wanted && left) || left > wanted || left + passed < wanted)
      changed("timers", "timer %d, clock %d: %llu ns were left, now %llu after %llu", index, timer->clock,
              (unsigned long long)wanted, (unsigned long long)left, (unsigned long long)passed);
  }
}

static void spoil_far_timers(void *state) {
  struct far_timers *far = state;
  for (int index = 0; index < TIMERS; index++)
    if (far->timers[index].exists)
      timer_settime(far->timers[index].timer, 0, &(struct itimerspec){{7, 0}, {5000, 0}}, NULL);
}

// -- A POSIX timer that expires all the time into a blocked signal: no expiry may get lost

struct running_timer {
  timer_t timer;
  uint64_t since, lost, counted;
  void *value;
};

enum { PERIOD = 2 * 1000 * 1000 };

static bool prepare_running_timer(void *state, struct random *random) {
  struct running_timer *running = state;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGNAL_TIMER};
  event.sigev_value.sival_ptr = running->value = (void *)(uintptr_t)random_next(random);
  return !timer_create(CLOCK_MONOTONIC, &event, &running->timer);
}

// Restarted now and then, so that an error of counting does not add up.
static void change_running_timer(void *state, struct random *random) {
  struct running_timer *running = state;
  siginfo_t info;
  if (running->since && random_below(random, 200)) return;
  timer_settime(running->timer, 0, &(struct itimerspec){0}, NULL);
  while (take(SIGNAL_TIMER, &info) == SIGNAL_TIMER) {
  }
  running->counted = 0;
  running->lost = lost_time();
  running->since = now_ns();
  timer_settime(running->timer, 0, &(struct itimerspec){{0, PERIOD}, {0, PERIOD}}, NULL);
}

static void check_running_timer(void *state) {
  struct running_timer *running = state;
  siginfo_t info;
  uint64_t before = now_ns();
  while (take(SIGNAL_TIMER, &info) == SIGNAL_TIMER) {
    running->counted += 1 + (uint64_t)info.si_overrun;
    expect("overrun", "code", SI_TIMER, info.si_code);
    expect("overrun", "value", (long long)(uintptr_t)running->value, (long long)(uintptr_t)info.si_value.sival_ptr);
  }
  // Of the time in which the process was stopped it is not known whether the timer ran.
  uint64_t most = (now_ns() - running->since) / PERIOD, lost = (lost_time() - running->lost) / PERIOD;
  uint64_t least = (before - running->since) / PERIOD;
  if (running->counted > most || running->counted + lost + 2 < least)
    changed("overrun", "%llu expiries counted, from %llu to %llu wanted", (unsigned long long)running->counted,
            (unsigned long long)(least > lost + 2 ? least - lost - 2 : 0), (unsigned long long)most);
}

static void spoil_running_timer(void *state) { ((struct running_timer *)state)->counted += 1000000; }

const struct kind signal_kinds[] = {
    {.name = "actions", .size = sizeof(struct actions), .change = change_actions, .check = check_actions,
     .spoil = spoil_actions},
    {.name = "mask", .of_thread = true, .size = sizeof(sigset_t), .change = change_mask, .check = check_mask,
     .spoil = spoil_mask},
    {.name = "stack", .of_thread = true, .size = sizeof(struct stack), .prepare = prepare_stack,
     .change = change_stack, .check = check_stack, .spoil = spoil_stack},
    {.name = "pending-thread", .of_thread = true, .size = sizeof(struct pending), .change = change_thread_pending,
     .check = check_thread_pending, .spoil = spoil_thread_pending},
    {.name = "pending-process", .size = sizeof(struct pending), .change = change_process_pending,
     .check = check_process_pending, .spoil = spoil_process_pending},
    {.name = "itimers", .size = sizeof(struct interval_timers), .change = change_interval_timers,
     .check = check_interval_timers, .spoil = spoil_interval_timers},
    {.name = "timers", .of_thread = true, .size = sizeof(struct far_timers), .change = change_far_timers,
     .check = check_far_timers, .spoil = spoil_far_timers},
    {.name = "overrun", .size = sizeof(struct running_timer), .prepare = prepare_running_timer,
     .change = change_running_timer, .check = check_running_timer, .spoil = spoil_running_timer},
    {0}};
