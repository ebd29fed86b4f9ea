// Kinds that a migration has to refuse by name before it stops anything; given up, they leave nothing behind.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "shapes.h"

struct held {
  int numbers[2];
  void *mapping;
};

static void make_memfd(void *state, struct random *random) {
  (void)random;
  ((struct held *)state)->numbers[0] = MUST(memfd_create("held", MFD_CLOEXEC));
}
static void make_inotify(void *state, struct random *random) {
  (void)random;
  ((struct held *)state)->numbers[0] = MUST(inotify_init1(IN_CLOEXEC));
}
static void make_timerfd(void *state, struct random *random) {
  (void)random;
  ((struct held *)state)->numbers[0] = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
}
static void make_signalfd(void *state, struct random *random) {
  (void)random;
  ((struct held *)state)->numbers[0] = MUST(signalfd(-1, &(sigset_t){0}, SFD_CLOEXEC));
}
static void make_unix(void *state, struct random *random) {
  (void)random;
  MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ((struct held *)state)->numbers));
}
static void make_lock(void *state, struct random *random) {
  char folder[256], path[512];
  make_folder(folder, "lock", random);
  snprintf(path, sizeof path, "%s/file", folder);
  int file = ((struct held *)state)->numbers[0] = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  MUST(flock(file, LOCK_EX));
}
static void make_deleted(void *state, struct random *random) {
  char folder[256], path[512];
  make_folder(folder, "deleted", random);
  snprintf(path, sizeof path, "%s/file", folder);
  ((struct held *)state)->numbers[0] = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  MUST(unlink(path));
}
static void make_written_mapping(void *state, struct random *random) {
  char folder[256], path[512];
  make_folder(folder, "mapping", random);
  snprintf(path, sizeof path, "%s/file", folder);
  struct held *held = state;
  held->numbers[0] = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  MUST(ftruncate(held->numbers[0], PAGE));
  held->mapping = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, held->numbers[0], 0);
  if (held->mapping == MAP_FAILED) wrong("mmap: %s", strerror(errno));
}

// One end has said that it sends nothing more.
static void make_half_closed(void *state, struct random *random) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int *numbers = ((struct held *)state)->numbers, listener = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  (void)random;
  MUST(bind(listener, (struct sockaddr *)&address, size));
  MUST(listen(listener, 1));
  MUST(getsockname(listener, (struct sockaddr *)&address, &size));
  numbers[0] = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  MUST(connect(numbers[0], (struct sockaddr *)&address, size));
  numbers[1] = MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
  MUST(close(listener));
  MUST(shutdown(numbers[0], SHUT_WR));
}

// It may send nothing more, and hears on.
static void make_mute(void *state, struct random *random) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int *numbers = ((struct held *)state)->numbers;
  (void)random;
  numbers[0] = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  MUST(bind(numbers[0], (struct sockaddr *)&address, sizeof address));
  MUST(connect(numbers[0], (struct sockaddr *)&(struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(9),
                                                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
               sizeof address));
  MUST(shutdown(numbers[0], SHUT_WR));
}

static void give_up(void *state) {
  struct held *held = state;
  if (held->mapping) MUST(munmap(held->mapping, PAGE));
  for (unsigned index = 0; index < COUNT(held->numbers); index++)
    if (held->numbers[index]) MUST(close(held->numbers[index]));
}

const struct kind refused_kinds[] = {
    {"memfd", "not carried yet", sizeof(struct held), make_memfd, NULL, give_up},
    {"inotify", "inotify", sizeof(struct held), make_inotify, NULL, give_up},
    {"timerfd", "timerfd", sizeof(struct held), make_timerfd, NULL, give_up},
    {"signalfd", "signalfd", sizeof(struct held), make_signalfd, NULL, give_up},
    {"unix", "socket", sizeof(struct held), make_unix, NULL, give_up},
    {"lock", "file lock", sizeof(struct held), make_lock, NULL, give_up},
    {"deleted", "deleted", sizeof(struct held), make_deleted, NULL, give_up},
    {"written-mapping", "shared writable mapping", sizeof(struct held), make_written_mapping, NULL, give_up},
    {"half-closed", "TCP connection in state finWait2", sizeof(struct held), make_half_closed, NULL, give_up},
    {"mute", "shut down for sending", sizeof(struct held), make_mute, NULL, give_up},
    {0},
};
