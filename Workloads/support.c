// What the workloads share; see support.h.
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

struct timespec timespec_of(uint64_t nanoseconds) {
  return (struct timespec){.tv_sec = (time_t)(nanoseconds / SECOND), .tv_nsec = (long)(nanoseconds % SECOND)};
}

void sleep_until(uint64_t instant) {
  struct timespec time = timespec_of(instant);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {
  }
}

void line_add_list(struct line *line, const char *format, va_list list) {
  size_t room = sizeof line->text - line->length - 1;  // One byte stays free for the line's end.
  int length = vsnprintf(line->text + line->length, room, format, list);
  if (length > 0) line->length += (size_t)length < room ? (size_t)length : room - 1;
}

void line_add(struct line *line, const char *format, ...) {
  va_list list;
  va_start(list, format);
  line_add_list(line, format, list);
  va_end(list);
}

void line_add_string(struct line *line, const char *text) {
  line_add(line, "\"");
  for (; *text; text++) {
    unsigned char byte = (unsigned char)*text;
    if (byte < 0x20 || byte == '"' || byte == '\\') line_add(line, "\\u%04x", byte);
    else line_add(line, "%c", byte);
  }
  line_add(line, "\"");
}

void line_send(struct line *line) {
  line->text[line->length++] = '\n';
  for (size_t sent = 0; sent < line->length;) {
    ssize_t count = write(STDOUT_FILENO, line->text + sent, line->length - sent);
    if (count < 0 && errno != EINTR && errno != EAGAIN) break;  // Nobody listens; the exit status still tells.
    if (count > 0) sent += (size_t)count;
  }
  line->length = 0;
}

void fail(const char *format, ...) {
  int reason = errno;
  va_list list;
  va_start(list, format);
  vdprintf(STDERR_FILENO, format, list);
  va_end(list);
  if (reason) dprintf(STDERR_FILENO, ": %s", strerror(reason));
  dprintf(STDERR_FILENO, "\n");
  _exit(EXIT_WRONG_USE);
}

static uint64_t parse_leading(const char *option, const char *text, char **rest) {
  errno = 0;
  uint64_t value = strtoull(text, rest, 10);
  if (errno || *rest == text || *text == '-') {
    errno = 0;
    fail("--%s %s: not a number", option, text);
  }
  return value;
}

uint64_t parse_number(const char *option, const char *text, uint64_t lowest, uint64_t highest) {
  char *rest;
  uint64_t value = parse_leading(option, text, &rest);
  if (*rest || value < lowest || value > highest)
    fail("--%s %s: want a number from %llu to %llu", option, text, (unsigned long long)lowest,
         (unsigned long long)highest);
  return value;
}

uint64_t parse_size(const char *option, const char *text) {
  char *rest;
  uint64_t value = parse_leading(option, text, &rest);
  unsigned shift = *rest == 'K' ? 10 : *rest == 'M' ? 20 : *rest == 'G' ? 30 : 0;
  if (rest[shift != 0] || value > UINT64_MAX >> shift)
    fail("--%s %s: want bytes, or a number followed by K, M or G", option, text);
  return value << shift;
}

unsigned parse_choice(const char *option, const char *text, const char *const *names) {
  for (unsigned index = 0; names[index]; index++)
    if (!strcmp(text, names[index])) return index;
  fail("--%s %s: unknown", option, text);
}

void *map_memory(size_t bytes, int flags) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  if (memory == MAP_FAILED) fail("mapping %zu bytes", bytes);
  return memory;
}

// The signals that report an error of the program itself must not be blocked: they would kill it unheard.
static void block_all_but_errors(void) {
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, SIGSEGV);
  sigdelset(&set, SIGBUS);
  sigdelset(&set, SIGILL);
  sigdelset(&set, SIGFPE);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void start_thread(void *(*body)(void *), void *argument, size_t stack) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  int reason = pthread_create(&thread, &attributes, body, argument);
  pthread_attr_destroy(&attributes);
  if (reason) {
    errno = reason;
    fail("starting a thread");
  }
}

atomic_bool control_verdict, control_reset, control_stop;
static sigset_t control_open;  // The mask while waiting.

static void control_note(int signal) {
  if (signal == SIGUSR1) control_verdict = true;
  else if (signal == SIGUSR2) control_reset = true;
  else control_stop = true;
}

void control_install(void) {
  struct sigaction note = {.sa_handler = control_note}, ignore = {.sa_handler = SIG_IGN};
  static const int signals[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
  sigfillset(&note.sa_mask);
  block_all_but_errors();
  sigfillset(&control_open);
  for (size_t index = 0; index < sizeof signals / sizeof *signals; index++) {
    sigaction(signals[index], &note, NULL);
    sigdelset(&control_open, signals[index]);
  }
  // The first process of a container inherits orphans; ignoring SIGCHLD reaps them.
  ignore.sa_flags = SA_NOCLDWAIT;
  sigaction(SIGCHLD, &ignore, NULL);
  ignore.sa_flags = 0;
  sigaction(SIGPIPE, &ignore, NULL);
}

void control_wait(uint64_t nanoseconds) {
  struct timespec time = timespec_of(nanoseconds);
  ppoll(NULL, 0, &time, &control_open);
}
