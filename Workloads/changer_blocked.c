// Threads that sit in blocking calls. With every signal blocked none of these may end early, late or with EINTR: a
// migration has to continue or restart them where the kernel would not do so by itself.
#define _GNU_SOURCE
#include "changer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// How long the calls with a timeout wait. The kernel does not tell how much of it is left, so after a move a call may
// wait for all of it again; half of it later than that is too late.
static const uint64_t TIMEOUT = 2000 * 1000 * 1000;

static void check_result(const struct kind *kind, long wanted, long wanted_error, long result) {
  int error = result < 0 ? errno : 0;
  if (result != wanted || error != wanted_error)
    changed(kind->name, "returned %ld (%s), wanted %ld (%s)", result, strerror(error), wanted,
            strerror((int)wanted_error));
}

// Runs a call that must time out, again and again.
static void __attribute__((noreturn))
keep_timing(const struct kind *kind, long (*call)(uint64_t timeout), long wanted, int wanted_error) {
  for (uint64_t timeout = 100 * MILLISECOND;; timeout = TIMEOUT) {
    uint64_t from = now_ns(), lost = lost_time();
    long result = call(timeout);
    if (spoil_now(kind)) result = -1, errno = EINTR;
    check_result(kind, wanted, wanted_error, result);
    uint64_t to = now_ns(), took = to - from, again = stood_still_until();
    lost = lost_time() - lost;
    if (again < from) again = from;
    if (took + 2 * MILLISECOND < timeout || (took > timeout + lost + TIMEOUT / 2 && to > again + timeout + TIMEOUT / 2))
      changed(kind->name, "took %llu us instead of %llu", (unsigned long long)(took / MICROSECOND),
              (unsigned long long)(timeout / MICROSECOND));
    count_round(kind);
  }
}

#define TIMED(name, wanted, error)                                                                       \
  static void *__attribute__((noreturn)) run_##name(void *kind) { keep_timing(kind, name, wanted, error); } \
  static void start_##name(const struct kind *kind) { start_thread(run_##name, (void *)kind, 64 * 1024); }

static int to_milliseconds(uint64_t timeout) { return (int)(timeout / MILLISECOND); }

static long sleep_relative(uint64_t timeout) {
  struct timespec time = timespec_of(timeout);
  return nanosleep(&time, NULL);
}
TIMED(sleep_relative, 0, 0)

static long sleep_absolute(uint64_t timeout) {
  struct timespec time = timespec_of(now_ns() + timeout);
  return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}
TIMED(sleep_absolute, 0, 0)

static long wait_epoll(uint64_t timeout) {
  static int set = -1;
  struct epoll_event event;
  if (set < 0) set = epoll_create1(EPOLL_CLOEXEC);
  return epoll_wait(set, &event, 1, to_milliseconds(timeout));
}
TIMED(wait_epoll, 0, 0)

static int quiet_pipe(void) {
  static int ends[2] = {-1, -1};
  static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&once);
  if (ends[0] < 0 && pipe2(ends, O_CLOEXEC)) fail("making a pipe");
  pthread_mutex_unlock(&once);
  return ends[0];
}

static long wait_poll(uint64_t timeout) {
  struct pollfd one = {.fd = quiet_pipe(), .events = POLLIN};
  return poll(&one, 1, to_milliseconds(timeout));
}
TIMED(wait_poll, 0, 0)

static long wait_select(uint64_t timeout) {
  struct timeval time = {(time_t)(timeout / SECOND), (suseconds_t)(timeout % SECOND / MICROSECOND)};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(quiet_pipe(), &set);
  return select(quiet_pipe() + 1, &set, NULL, NULL, &time);
}
TIMED(wait_select, 0, 0)

static long wait_futex_timed(uint64_t timeout) {
  static uint32_t word;
  struct timespec time = timespec_of(timeout);
  return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
}
TIMED(wait_futex_timed, -1, ETIMEDOUT)

static long wait_signal(uint64_t timeout) {
  struct timespec time = timespec_of(timeout);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGNAL_AWAITED);
  return sigtimedwait(&set, NULL, &time);
}
TIMED(wait_signal, -1, EAGAIN)

// A socket of the loopback that never receives anything.
static int quiet_socket(uint64_t timeout) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct timeval time = {(time_t)(timeout / SECOND), (suseconds_t)(timeout % SECOND / MICROSECOND)};
  static int made = -1;
  if (made < 0) {
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &length) ||
        connect(peer, (struct sockaddr *)&address, length) || (made = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
      fail("connecting over the loopback");
    close(listener);
  }
  setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  return made;
}

static long wait_receive(uint64_t timeout) {
  char byte;
  return recv(quiet_socket(timeout), &byte, 1, 0);
}
TIMED(wait_receive, -1, EAGAIN)

// -- Calls without a timeout: a waker ends each of them every quarter of a second

static struct {
  int pipe[2], event, set;
  uint32_t word;
} endless;

static void *__attribute__((noreturn)) keep_reading(void *argument) {
  const struct kind *kind = argument;
  for (uint8_t wanted = 0, found;; wanted++) {
    check_result(kind, 1, 0, read(endless.pipe[0], &found, 1));
    if (spoil_now(kind)) found++;
    expect(kind->name, "byte", wanted, found);
    count_round(kind);
  }
}

static void *__attribute__((noreturn)) keep_polling(void *argument) {
  const struct kind *kind = argument;
  for (;;) {
    struct epoll_event event;
    uint64_t value = 0;
    check_result(kind, 1, 0, epoll_wait(endless.set, &event, 1, -1));
    check_result(kind, 0, 0, eventfd_read(endless.event, &value));
    if (spoil_now(kind)) event.data.u64++;
    expect(kind->name, "data", 0x123456789abcdef, (long long)event.data.u64);
    count_round(kind);
  }
}

// The word rises by one at each wake-up; EAGAIN says that it rose before the wait began.
static void *__attribute__((noreturn)) keep_waiting(void *argument) {
  const struct kind *kind = argument;
  for (uint32_t seen = 0;; seen = __atomic_load_n(&endless.word, __ATOMIC_ACQUIRE)) {
    long result = syscall(SYS_futex, &endless.word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    if (spoil_now(kind)) result = -1, errno = EINTR;
    if (result && errno != EAGAIN) check_result(kind, 0, 0, result);
    count_round(kind);
  }
}

static void *__attribute__((noreturn)) keep_waking(void *argument) {
  (void)argument;
  for (uint8_t byte = 0;; byte++) {
    sleep_until(now_ns() + 250 * MILLISECOND);
    // Nobody reads if the kind is left out: the pipe must not fill up and block.
    if (write(endless.pipe[1], &byte, 1) != 1 && errno != EAGAIN) changed("waker", "write: %s", strerror(errno));
    eventfd_write(endless.event, 1);
    __atomic_fetch_add(&endless.word, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &endless.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  }
}

static void start_endless(const struct kind *kind, void *(*body)(void *)) {
  static bool made;
  if (!made) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef};
    endless.event = eventfd(0, EFD_CLOEXEC);
    endless.set = epoll_create1(EPOLL_CLOEXEC);
    if (pipe2(endless.pipe, O_CLOEXEC) || fcntl(endless.pipe[1], F_SETFL, O_NONBLOCK) ||
        epoll_ctl(endless.set, EPOLL_CTL_ADD, endless.event, &event))
      fail("preparing blocked threads");
    start_thread(keep_waking, NULL, 64 * 1024);
    made = true;
  }
  start_thread(body, (void *)kind, 64 * 1024);
}

static void start_reading(const struct kind *kind) { start_endless(kind, keep_reading); }
static void start_polling(const struct kind *kind) { start_endless(kind, keep_polling); }
static void start_waiting(const struct kind *kind) { start_endless(kind, keep_waiting); }

const struct kind blocked_kinds[] = {
    {.name = "block-nanosleep", .start = start_sleep_relative},
    {.name = "block-nanosleep-absolute", .start = start_sleep_absolute},
    {.name = "block-epoll-timed", .start = start_wait_epoll},
    {.name = "block-poll-timed", .start = start_wait_poll},
    {.name = "block-select-timed", .start = start_wait_select},
    {.name = "block-futex-timed", .start = start_wait_futex_timed},
    {.name = "block-sigtimedwait", .start = start_wait_signal},
    {.name = "block-recv-timed", .by_request = true, .start = start_wait_receive},
    {.name = "block-read", .start = start_reading},
    {.name = "block-epoll", .start = start_polling},
    {.name = "block-futex", .start = start_waiting},
    {0}};
