// Holds many open files, or few at the limit, and checks that each is the one it was.
//
//   opener many N      N eventfds, each with a count of its own
//   opener same N      one file, opened N times, each at an offset of its own
//   opener pipes N     N pipes, the numbers of their ends in the wrong order
//   opener full N      as many eventfds as the limit allows, which it sets to N; with `full N HARD` the hard limit stays
//   opener lowered N   N eventfds, and then a limit of 3
//   opener top N       an eventfd at the highest number that the limit of N allows
//   opener folder N    a folder of N files, read to its end
//   opener alias N     N epoll items whose number was closed, or is another file by now, while a duplicate lives on
//
// SIGUSR1 asks for a verdict, one line of JSON. Exit status 3: something is not as it was.
#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct rlimit limit;
static int *files, *partners, set;
static unsigned count;
static DIR *folder;
static const char *mode;

static void __attribute__((format(printf, 1, 2), noreturn)) wrong(const char *format, ...) {
  static struct line line, detail;
  va_list list;
  va_start(list, format);
  line_add_list(&detail, format, list);
  va_end(list);
  line_add(&line, "{\"oracle\":\"wrong\",\"detail\":");
  line_add_string(&line, detail.text);
  line_add(&line, "}");
  line_send(&line);
  _exit(EXIT_CORRUPT);
}
static int must(int result, const char *what) {
  if (result < 0) fail("%s: %s", what, strerror(errno));
  return result;
}
static bool is(const char *name) { return !strcmp(mode, name); }

static void set_limit(rlim_t soft, rlim_t hard) {
  limit = (struct rlimit){soft, hard};
  must(setrlimit(RLIMIT_NOFILE, &limit), "setting the limit");
}

static void watch(int file, uint64_t data) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  must(epoll_ctl(set, EPOLL_CTL_ADD, file, &event), "watching");
}

// An item whose number is closed; every second number is another watched file afterwards.
static void alias(unsigned index) {
  int number = must(eventfd(0, EFD_NONBLOCK), "eventfd");
  watch(number, 2 * index);
  files[index] = must(fcntl(number, F_DUPFD_CLOEXEC, 700), "dup");
  close(number);
  partners[index] = -1;
  if (index % 2) return;
  partners[index] = must(eventfd(0, EFD_NONBLOCK), "eventfd");
  if (partners[index] != number) fail("number %d was not used again", number);
  watch(number, 2 * index + 1);
}

static void swap_pipe(unsigned index) {
  int ends[2];
  must(pipe2(ends, O_NONBLOCK), "pipe");
  int aside = must(dup(ends[0]), "dup");
  must(dup2(ends[1], ends[0]), "dup2");
  must(dup2(aside, ends[1]), "dup2");
  close(aside);
  files[index] = ends[1], partners[index] = ends[0];
  if (write(partners[index], &index, sizeof index) != sizeof index) fail("filling a pipe");
}

static unsigned names_left(void) {
  unsigned names = 0;
  while (readdir(folder)) names++;
  return names;
}

static void fill_folder(unsigned wanted) {
  char path[64];
  if (mkdir("/folder", 0700)) fail("/folder");
  for (unsigned index = 0; index < wanted; index++) {
    snprintf(path, sizeof path, "/folder/%u", index);
    close(must(open(path, O_WRONLY | O_CREAT, 0600), path));
  }
  folder = opendir("/folder");
  if (!folder || names_left() != wanted + 2) fail("reading /folder");
  count = wanted;
}

static void check_folder(void) {
  unsigned left = names_left();
  if (left) wrong("%u names at the folder's end", left);
  rewinddir(folder);
  if (names_left() != count + 2) wrong("a folder of other names");
}

static void open_all(unsigned wanted) {
  if (is("folder")) return fill_folder(wanted);
  if (is("top")) {
    set_limit(wanted, limit.rlim_max);
    int file = must(eventfd(7, EFD_NONBLOCK), "eventfd");
    files[count++] = must(dup2(file, (int)wanted - 1), "dup2");
    close(file);
    return;
  }
  set = is("alias") ? must(epoll_create1(0), "epoll_create1") : -1;
  for (; count < wanted; count++) {
    if (is("alias")) alias(count);
    else if (is("pipes")) swap_pipe(count);
    else if (is("same")) {
      files[count] = must(open("/opener", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "/opener");
      must((int)lseek(files[count], count, SEEK_SET), "lseek");
    } else files[count] = eventfd(count, EFD_NONBLOCK | (count % 3 ? 0 : EFD_CLOEXEC));
    if (files[count] < 0) break;
  }
  if (is("full") ? errno != EMFILE : count < wanted) fail("opening: %s", strerror(errno));
  if (is("lowered")) set_limit(3, 3);
}

static void expect_events(unsigned index, int file, unsigned data, int wanted) {
  struct epoll_event found[4];
  uint64_t value = 1;
  if (write(file, &value, 8) != 8) wrong("file %u: writing: %s", index, strerror(errno));
  int got = epoll_wait(set, found, 4, 0);
  if (got != wanted || (got && found[0].data.u64 != data))
    wrong("item %u: %d events, the first with data %llu", index, got, got > 0 ? (unsigned long long)found[0].data.u64 : 0);
  if (read(file, &value, 8) != 8 || value != 1) wrong("file %u: count %llu", index, (unsigned long long)value);
}

static void check(unsigned index) {
  uint64_t value = 0;
  unsigned found = 0;
  if (is("alias")) {
    expect_events(index, files[index], 2 * index, 1);
    if (partners[index] >= 0) expect_events(index, partners[index], 2 * index + 1, 1);
  } else if (is("pipes")) {
    if (read(files[index], &found, sizeof found) != sizeof found || found != index) wrong("pipe %u holds %u", index, found);
    if (write(partners[index], &found, sizeof found) != sizeof found) wrong("pipe %u: %s", index, strerror(errno));
    if (fcntl(files[index], F_GETFD) != 0) wrong("pipe %u: flags", index);
  } else if (is("same")) {
    off_t offset = lseek(files[index], 0, SEEK_CUR);
    if (offset != (off_t)index) wrong("opening %u is at %lld", index, (long long)offset);
    if (!(fcntl(files[index], F_GETFD) & FD_CLOEXEC)) wrong("opening %u: flags", index);
  } else {
    uint64_t right = is("top") ? 7 : index;
    if (right && (read(files[index], &value, 8) != 8 || value != right))
      wrong("fd %d holds %llu", files[index], (unsigned long long)value);
    if (right && write(files[index], &value, 8) != 8) wrong("fd %d: %s", files[index], strerror(errno));
    if (!is("top") && fcntl(files[index], F_GETFD) != (index % 3 ? 0 : FD_CLOEXEC)) wrong("fd %d: flags", files[index]);
  }
}

static void report(void) {
  static struct line line;
  struct rlimit now;
  getrlimit(RLIMIT_NOFILE, &now);
  if (now.rlim_cur != limit.rlim_cur || now.rlim_max != limit.rlim_max) wrong("the limit is %d", (int)now.rlim_cur);
  if (is("folder")) check_folder();
  for (unsigned index = 0; index < count && !is("folder"); index++) check(index);
  line_add(&line, "{\"oracle\":\"ok\",\"files\":%u}", count);
  line_send(&line);
}

int main(int words, char **arguments) {
  if (words < 3) fail("usage: opener many|same|pipes|full|lowered|top|folder|alias N [HARD]");
  mode = arguments[1];
  unsigned wanted = (unsigned)parse_number("N", arguments[2], 1, 1000000);
  must(getrlimit(RLIMIT_NOFILE, &limit), "reading the limit");
  files = map_memory((wanted + 1) * sizeof *files, MAP_PRIVATE);
  partners = map_memory((wanted + 1) * sizeof *partners, MAP_PRIVATE);
  control_install();
  if (is("full")) set_limit(wanted, words > 3 ? limit.rlim_max : wanted);
  open_all(wanted);
  static struct line line;
  line_add(&line, "{\"ready\":\"opener\"}");
  line_send(&line);
  while (!control_stop) {
    control_wait(100 * MILLISECOND);
    if (atomic_exchange(&control_verdict, false)) report();
  }
  return 0;
}
