// Writes pages of its memory when it is told to: what the tests of tracking and of page-fault events observe.
//   writer PAGES    maps them, writes to all but the last 16, and prints its pid, their address and a userfaultfd that
//                   the observer may take; then obeys commands on its input, each answered by one line:
//   w FIRST COUNT   writes that many pages, one after the other: the instant before the first write (ns, monotonic)
//   t FIRST COUNT   the same in a new thread
//   c FIRST COUNT   the same in a child
//   r FIRST COUNT   lets read(2) write them
//   l FIRST COUNT   looks at them
//   u               closes the userfaultfd
//   m KIND GIB      reserves address space: 0 without access, 1 writable, 2 shared: its address
//   p FIRST COUNT   makes pages of the reservation writable and writes them
//   z FIRST COUNT   drops pages of the reservation
//   o GIB           maps the reservation anew, larger by so much, with its end where it was
//   g PAGES         grows it by mremap(2): 0, or its errno
//   b COUNT RATE    writes pages in turn at a rate (pages/s): median and mean cost of a write in ns, writes/s
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, UNTOUCHED = 16, SECOND = 1000000000 };
static volatile char *memory;
static unsigned long pages, first, count;
static char *reserved;
static unsigned long kind, size;

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * (int64_t)SECOND + time.tv_nsec;
}

static void *write_pages(void *unused) {
  for (unsigned long page = first; page < first + count; page++) memory[page * PAGE + 8]++;
  return unused;
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void bench(unsigned long number, unsigned long rate) {
  int64_t *costs = malloc(number * sizeof *costs), sum = 0, start = now();
  if (!costs) exit(1);
  memset(costs, 1, number * sizeof *costs);
  for (unsigned long i = 0; i < number; i++) {
    int64_t due = start + (int64_t)(i * (double)SECOND / (double)rate);
    while (now() + 200000 < due) usleep(100);
    while (now() < due) {}
    int64_t before = now();
    memory[i % (pages - UNTOUCHED) * PAGE + 8]++;
    costs[i] = now() - before;
    sum += costs[i];
  }
  double took = (double)(now() - start) / SECOND;
  qsort(costs, number, sizeof *costs, compare);
  printf("%ld %ld %.0f\n", (long)costs[number / 2], (long)(sum / (int64_t)number), (double)number / took);
  free(costs);
}

static void reserve(unsigned long gibibytes) {
  int flags = (kind == 2 ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE;
  reserved = mmap(NULL, gibibytes << 30, kind ? PROT_READ | PROT_WRITE : PROT_NONE, flags, -1, 0);
  if (reserved == MAP_FAILED || (kind != 2 && madvise(reserved, gibibytes << 30, MADV_NOHUGEPAGE))) exit(1);
  size = gibibytes << 30;
  printf("%ld\n", (long)reserved);
}

static void outgrow(unsigned long gibibytes) {
  char *end = reserved + size;
  if (munmap(reserved, size)) exit(1);
  size += gibibytes << 30;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
  reserved = mmap(end - size, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (reserved != end - size) exit(1);
}

static int grow(unsigned long by) {
  void *now_at = mremap(reserved, size, size + by * PAGE, MREMAP_MAYMOVE);
  if (now_at == MAP_FAILED) return errno;
  reserved = now_at;
  size += by * PAGE;
  return 0;
}

static void populate(void) {
  char *start = reserved + first * PAGE;
  if (mprotect(start, count * PAGE, PROT_READ | PROT_WRITE)) exit(1);
  for (unsigned long page = 0; page < count; page++) start[page * PAGE]++;
}

int main(int argument_count, char **arguments) {
  pages = argument_count > 1 ? strtoul(arguments[1], NULL, 10) : 0;
  if (pages <= UNTOUCHED) return 2;
  memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || madvise((void *)memory, pages * PAGE, MADV_NOHUGEPAGE)) return 1;
  count = pages - UNTOUCHED;
  write_pages(NULL);
  int tracker = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), zero = open("/dev/zero", O_RDONLY);
  printf("%d %lu %d\n", getpid(), (unsigned long)memory, tracker);
  fflush(stdout);
  char line[100], command;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%c %lu %lu", &command, &first, &count) < 1) continue;
    if (!strchr("bgmopz", command) && (first > pages || count > pages - first)) return 2;
    int64_t instant = now();
    pthread_t thread;
    switch (command) {
      case 'w': write_pages(NULL); break;
      case 't':
        if (pthread_create(&thread, NULL, write_pages, NULL) || pthread_join(thread, NULL)) return 1;
        break;
      case 'c':
        if (!fork()) _exit(!!write_pages(NULL));
        wait(NULL);
        break;
      case 'r':
        for (unsigned long page = first; page < first + count; page++)
          if (read(zero, (void *)(memory + page * PAGE + 64), 10) != 10) return 1;
        break;
      case 'l':
        for (unsigned long page = first; page < first + count; page++) (void)memory[page * PAGE];
        break;
      case 'u': close(tracker); break;
      case 'm':
        kind = first;
        reserve(count);
        break;
      case 'p': populate(); break;
      case 'z':
        if (madvise(reserved + first * PAGE, count * PAGE, kind == 2 ? MADV_REMOVE : MADV_DONTNEED)) return 1;
        break;
      case 'o': outgrow(first); break;
      case 'g': printf("%d\n", grow(first)); break;
      case 'b': bench(first, count); break;
      default: return 2;
    }
    if (!strchr("bgm", command)) printf("%ld\n", (long)instant);
    fflush(stdout);
  }
  return 0;
}
