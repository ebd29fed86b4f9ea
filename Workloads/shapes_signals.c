// Signals that wait, are handled and blocked; timers.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "shapes.h"

// -- signals: queued for the process and for this thread, with their values; actions, masks, alternate stacks

enum { QUEUED = 20, ACTIONS = 6 };
#define FOR_PROCESS (SIGRTMIN + 1)
#define FOR_THREAD (SIGRTMIN + 2)
#define HANDLED (SIGRTMIN + 3)
#define FIRST_ACTION (SIGRTMIN + 8)

struct signals {
  struct {
    uint64_t sent, received;
  } queues[2];
  struct sigaction actions[ACTIONS];
  sigset_t mask;
  char stacks[2][32 * 1024];
  unsigned stack;
  unsigned handled;
};
static _Thread_local volatile unsigned handled;

static void handle(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  handled += (unsigned)info->si_value.sival_int;
}
static void handle_nothing(int number) { (void)number; }

static void set_up_signals(void *state, struct random *random) {
  struct signals *all = state;
  (void)random;
  struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  MUST(sigaction(HANDLED, &action, NULL));
  MUST(sigaltstack(&(stack_t){.ss_sp = all->stacks[0], .ss_size = sizeof all->stacks[0]}, NULL));
  pthread_sigmask(SIG_SETMASK, NULL, &all->mask);
  for (unsigned index = 0; index < ACTIONS; index++) sigaction(FIRST_ACTION + (int)index, NULL, &all->actions[index]);
}

static void send_signal(struct signals *all, bool to_thread) {
  union sigval value = {.sival_ptr = (void *)(uintptr_t)all->queues[to_thread].sent};
  if (all->queues[to_thread].sent - all->queues[to_thread].received >= QUEUED) return;
  if (to_thread) MUST(-pthread_sigqueue(pthread_self(), FOR_THREAD, value) ? -1 : 0);
  else MUST(sigqueue(getpid(), FOR_PROCESS, value));
  all->queues[to_thread].sent++;
}

static void take_signal(struct signals *all, bool to_thread) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, to_thread ? FOR_THREAD : FOR_PROCESS);
  bool waits = all->queues[to_thread].sent > all->queues[to_thread].received;
  int number = sigtimedwait(&set, &info, &(struct timespec){0});
  if (number < 0 && (waits || errno != EAGAIN)) wrong("a signal is lost (to a thread: %d): %s", to_thread, strerror(errno));
  if (number < 0) return;
  if (!waits) wrong("a signal that nobody sent");
  SAME("value of the signal", all->queues[to_thread].received++, (uintptr_t)info.si_value.sival_ptr);
  SAME("code of the signal", SI_QUEUE, info.si_code);
  SAME("sender of the signal", getpid(), info.si_pid);
}

static void check_actions(struct signals *all) {
  for (unsigned index = 0; index < ACTIONS; index++) {
    struct sigaction found;
    MUST(sigaction(FIRST_ACTION + (int)index, NULL, &found));
    if (found.sa_handler != all->actions[index].sa_handler) wrong("another action of signal %d", FIRST_ACTION + (int)index);
    SAME("flags of the action", all->actions[index].sa_flags, found.sa_flags);
    SAME("mask of the action", 0, memcmp(&found.sa_mask, &all->actions[index].sa_mask, 8));
  }
}

static void turn_signals(void *state, struct random *random) {
  struct signals *all = state;
  sigset_t mask;
  stack_t stack;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  SAME("mask of signals", 0, memcmp(&mask, &all->mask, 8));
  MUST(sigaltstack(NULL, &stack));
  SAME("alternate stack", (uintptr_t)all->stacks[all->stack], (uintptr_t)stack.ss_sp);
  check_actions(all);
  if (random_below(random, 2)) send_signal(all, random_below(random, 2));
  else take_signal(all, random_below(random, 2));

  unsigned before = handled;
  // Handled at once: this thread alone lets it through.
  sigdelset(&all->mask, HANDLED);
  pthread_sigmask(SIG_SETMASK, &all->mask, NULL);
  pthread_sigqueue(pthread_self(), HANDLED, (union sigval){.sival_int = 3});
  SAME("handled", before + 3, handled);

  int blocked = FIRST_ACTION + (int)random_below(random, ACTIONS);
  if (random_below(random, 2)) sigaddset(&all->mask, blocked);
  else sigdelset(&all->mask, blocked);
  pthread_sigmask(SIG_SETMASK, &all->mask, NULL);
  struct sigaction *action = &all->actions[random_below(random, ACTIONS)];
  *action = (struct sigaction){.sa_flags = random_below(random, 2) ? SA_RESTART : 0};
  action->sa_handler = random_below(random, 2) ? SIG_IGN : handle_nothing;
  sigaddset(&action->sa_mask, FIRST_ACTION + (int)random_below(random, ACTIONS));
  MUST(sigaction(FIRST_ACTION + (int)(action - all->actions), action, NULL));
  sigaction(FIRST_ACTION + (int)(action - all->actions), NULL, action);
  all->stack = (unsigned)random_below(random, 2);
  MUST(sigaltstack(&(stack_t){.ss_sp = all->stacks[all->stack], .ss_size = sizeof all->stacks[0]}, NULL));
}

// -- timers: of the process and by POSIX, armed and at rest; none comes early

enum { TIMERS = 8 };
#define FROM_TIMER (SIGRTMIN + 4)
struct timers {
  struct posix_timer {
    timer_t id;
    bool exists, armed, silent;
    clockid_t clock;
    uint64_t armed_at, delay;
  } timers[TIMERS];
  uint64_t interval_armed_at, interval_delay;
};

static uint64_t clock_ns(clockid_t clock) {
  struct timespec time;
  MUST(clock_gettime(clock, &time));
  return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void make_timer(struct posix_timer *timer, unsigned index, struct random *random) {
  static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC};
  *timer = (struct posix_timer){.exists = true, .silent = random_below(random, 3) == 0};
  timer->clock = clocks[random_below(random, COUNT(clocks))];
  struct sigevent event = {.sigev_notify = timer->silent ? SIGEV_NONE : SIGEV_THREAD_ID, .sigev_signo = FROM_TIMER};
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  event.sigev_value.sival_int = (int)index;
  MUST(timer_create(timer->clock, &event, &timer->id));
}

static void arm_timer(struct posix_timer *timer, struct random *random) {
  timer->delay = (1 + random_below(random, 3000)) * MILLISECOND;
  timer->armed_at = clock_ns(timer->clock);
  timer->armed = true;
  MUST(timer_settime(timer->id, 0, &(struct itimerspec){.it_value = timespec_of(timer->delay)}, NULL));
}

// What is left fits the clock; a signal waits once it is over.
static void check_timer(struct posix_timer *timer) {
  struct itimerspec left;
  if (!timer->armed) return;
  MUST(timer_gettime(timer->id, &left));
  uint64_t remaining = (uint64_t)left.it_value.tv_sec * SECOND + (uint64_t)left.it_value.tv_nsec;
  uint64_t elapsed = clock_ns(timer->clock) - timer->armed_at;
  if (remaining > timer->delay) wrong("more is left than there was");
  if (elapsed + remaining + MILLISECOND < timer->delay) wrong("a timer is %llu ns early", (unsigned long long)(timer->delay - elapsed - remaining));
  if (elapsed > timer->delay + 20 * SECOND && remaining) wrong("a timer is late by %llu ns", (unsigned long long)(elapsed - timer->delay));
  if (timer->silent && !remaining) timer->armed = false;
}

static void take_expirations(struct timers *all) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, FROM_TIMER);
  while (sigtimedwait(&set, &info, &(struct timespec){0}) == FROM_TIMER) {
    SAME("code of the signal", SI_TIMER, info.si_code);
    if (info.si_value.sival_int < 0 || info.si_value.sival_int >= TIMERS) wrong("a timer that is none of ours");
    struct posix_timer *timer = &all->timers[info.si_value.sival_int];
    if (!timer->exists || !timer->armed || timer->silent) wrong("a timer that was not armed has expired");
    if (clock_ns(timer->clock) < timer->armed_at + timer->delay) wrong("a timer has expired early");
    timer->armed = false;
  }
}

static void check_interval(struct timers *all) {
  struct itimerval left;
  MUST(getitimer(ITIMER_REAL, &left));
  uint64_t remaining = (uint64_t)left.it_value.tv_sec * SECOND + (uint64_t)left.it_value.tv_usec * MICROSECOND;
  uint64_t elapsed = now_ns() - all->interval_armed_at;
  if (all->interval_delay && elapsed + remaining + 2 * MILLISECOND < all->interval_delay) wrong("the interval timer is early");
}

static void set_up_timers(void *state, struct random *random) {
  struct timers *all = state;
  for (unsigned index = 0; index < TIMERS; index++) make_timer(&all->timers[index], index, random);
}

static void turn_timers(void *state, struct random *random) {
  struct timers *all = state;
  take_expirations(all);
  for (unsigned index = 0; index < TIMERS; index++) check_timer(&all->timers[index]);
  check_interval(all);
  unsigned index = (unsigned)random_below(random, TIMERS);
  struct posix_timer *timer = &all->timers[index];
  switch (random_below(random, 12)) {
    case 0:
      if (timer->armed) break;
      MUST(timer_delete(timer->id));
      make_timer(timer, index, random);
      break;
    case 1: {
      // Long enough that it never expires: SIGALRM would end the program.
      all->interval_delay = 3600 * SECOND + random_below(random, SECOND);
      struct timespec delay = timespec_of(all->interval_delay);
      all->interval_armed_at = now_ns();
      MUST(setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {delay.tv_sec, delay.tv_nsec / 1000}}, NULL));
      break;
    }
    default:
      if (!timer->armed) arm_timer(timer, random);
  }
}

const struct kind signal_kinds[] = {
    {"signals", NULL, sizeof(struct signals), set_up_signals, turn_signals, NULL},
    {"timers", NULL, sizeof(struct timers), set_up_timers, turn_timers, NULL},
    {0},
};
