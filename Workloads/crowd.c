// Many of a kind: crowd KIND NUMBER makes so many threads, mappings, descriptors or files and waits. SIGUSR1 asks for a
// verdict: is each still what it was? One file is written to all the time, so that a move finds one changed.
//   threads      each with a name, a counter in its registers' keeping, and an alternate stack of its own
//   mappings     of one page each, with contents of their own, readable and writable in turn
//   descriptors  half event counters with values of their own, half one file opened at places of their own
//   files        in folders of a thousand
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support.h"

static unsigned long number;
static uint64_t *counts;
static uint8_t *pages;
static int first_descriptor;
static _Atomic unsigned long arrived;
static const char *wrong;

// -- Threads

static void *work(void *argument) {
  unsigned long index = (unsigned long)argument;
  char name[16], found[16];
  snprintf(name, sizeof name, "worker-%lu", index);
  prctl(PR_SET_NAME, name);
  uint8_t stack[4096];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, seen;
  if (sigaltstack(&alternate, NULL)) fail("an alternate stack");
  arrived++;
  for (uint64_t count = 1;; count++) {
    usleep((useconds_t)(400000 + index % 500 * 1000));
    if (counts[index] != count - 1) wrong = "a thread's counter";
    counts[index] = count;
    if (prctl(PR_GET_NAME, found) || strcmp(name, found)) wrong = "a thread's name";
    if (sigaltstack(NULL, &seen) || seen.ss_sp != stack) wrong = "an alternate stack";
  }
  return NULL;
}

static void make_threads(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 32768);
  counts = calloc(number, sizeof *counts);
  for (unsigned long index = 0; index < number; index++)
    if (pthread_create(&thread, &attributes, work, (void *)index)) fail("thread %lu of %lu", index, number);
  while (arrived < number) usleep(1000);
}

static void check_threads(void) {}

// -- Mappings

static void make_mappings(void) {
  pages = mmap(NULL, number * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) fail("mapping %lu pages", number);
  for (unsigned long index = 0; index < number; index++) *(uint64_t *)(void *)(pages + index * PAGE) = mix(index);
  for (unsigned long index = 0; index < number; index += 2)
    if (mprotect(pages + index * PAGE, PAGE, PROT_READ)) fail("protecting page %lu: %s", index, strerror(errno));
}

static void check_mappings(void) {
  for (unsigned long index = 0; index < number; index++) {
    uint64_t *page = (uint64_t *)(void *)(pages + index * PAGE);
    if (*page != mix(index)) wrong = "a page";
    if (index % 2) page[1]++;
  }
}

// -- Descriptors

static uint64_t value_of(int descriptor) { return 1 + mix((uint64_t)descriptor) % 1000; }

static void make_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) fail("asking for the limit of descriptors");
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  int file = open("/crowd", O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, 1 << 20)) fail("making a file");
  for (unsigned long index = 0; index < number; index++) {
    int descriptor = index % 2 ? open("/crowd", O_RDWR) : eventfd(0, EFD_NONBLOCK);
    if (descriptor < 0) fail("descriptor %lu of %lu: %s", index, number, strerror(errno));
    if (!index) first_descriptor = descriptor;
    uint64_t value = value_of(descriptor);
    if (index % 2 ? lseek(descriptor, (off_t)value, SEEK_SET) < 0 : write(descriptor, &value, 8) != 8) fail("setting it");
  }
}

static void check_descriptors(void) {
  for (unsigned long index = 0; index < number; index++) {
    int descriptor = first_descriptor + (int)index;
    uint64_t value = value_of(descriptor), found = 0;
    if (index % 2) found = (uint64_t)lseek(descriptor, 0, SEEK_CUR);
    else if (read(descriptor, &found, 8) != 8 || write(descriptor, &value, 8) != 8) wrong = "a counter";
    if (found != value) wrong = "a descriptor";
  }
}

// -- Files

static void path_of(char *path, unsigned long index) {
  sprintf(path, "/%lu/%lu", index / 1000, index);
}

static void make_files(void) {
  char path[64];
  for (unsigned long index = 0; index < number; index++) {
    path_of(path, index);
    if (index % 1000 == 0) {
      char folder[64];
      sprintf(folder, "/%lu", index / 1000);
      if (mkdir(folder, 0755)) fail("making a folder");
    }
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (file < 0 || dprintf(file, "%lu\n", index) < 0) fail("file %lu: %s", index, strerror(errno));
    close(file);
  }
}

static void check_files(void) {
  char path[64], text[64] = {0};
  for (unsigned long index = 0; index < number; index++) {
    path_of(path, index);
    int file = open(path, O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length < 1 || strtoul(text, NULL, 10) != index) wrong = "a file";
  }
}

// -- All

static const struct {
  const char *name;
  void (*make)(void), (*check)(void);
} kinds[] = {{"threads", make_threads, check_threads},
             {"mappings", make_mappings, check_mappings},
             {"descriptors", make_descriptors, check_descriptors},
             {"files", make_files, check_files}};

int main(int count, char **arguments) {
  size_t kind = 0;
  while (count == 3 && kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind].name, arguments[1])) kind++;
  if (count != 3 || kind == sizeof kinds / sizeof *kinds) fail("usage: crowd threads|mappings|descriptors|files NUMBER");
  number = parse_number("NUMBER", arguments[2], 1, 1000000);
  control_install();
  kinds[kind].make();
  int changing = kinds[kind].make == make_files ? open("/changing", O_WRONLY | O_CREAT, 0600) : -1;
  static struct line line;
  line_add(&line, "{\"ready\":\"crowd\"}");
  line_send(&line);
  for (uint64_t turn = 0;; turn++) {
    control_wait(100 * MILLISECOND);
    if (control_stop) return 0;
    if (changing >= 0 && pwrite(changing, &turn, sizeof turn, 0) != sizeof turn) wrong = "writing";
    if (!atomic_exchange(&control_verdict, false)) continue;
    kinds[kind].check();
    line_add(&line, "{\"oracle\":\"%s\",\"what\":\"%s\"}", wrong ? "corrupt" : "ok", wrong ? wrong : "");
    line_send(&line);
  }
}
