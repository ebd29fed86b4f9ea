// Changes every kind of process state in a loop and verifies that it finds exactly what it set last. State that a
// migration stages early and does not capture again at the handover is noticed here, as is a blocked call that ends
// with EINTR although no handler ran.
//
// The kinds are in changer_*.c; this file runs them: one thread for the state of the process, several for the state
// that each thread has, and threads of their own for the kinds that are about threads or blocked calls.
#define _GNU_SOURCE
#include "changer.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_KINDS = 64, STATE_THREADS = 2, INSTANCES = STATE_THREADS + 1 };

static const struct kind *kinds[MOST_KINDS];
static bool chosen[MOST_KINDS], left_out[MOST_KINDS];
static atomic_uint preparing;
static _Atomic uint64_t rounds[MOST_KINDS], whole_rounds;
static unsigned kinds_count;
static atomic_bool spoil_wanted;
static struct ticks *ticks;
static uint64_t started;
const char *changer_folder;

static struct {
  uint64_t seed, run_for, corrupt_after, interval;
  const char *kinds, *folder, *corrupt_kind;
  bool churn;
} options = {.seed = 1, .interval = 1000, .kinds = "default", .churn = true};

typedef unsigned long long number;

// -- What the kinds call

static void remove_folder(void);
static atomic_flag told = ATOMIC_FLAG_INIT;  // The last line has been said.

void changed(const char *kind, const char *format, ...) {
  static struct line line, detail;
  if (atomic_flag_test_and_set(&told))
    for (;;) sleep_until(now_ns() + SECOND);
  va_list list;
  va_start(list, format);
  line_add_list(&detail, format, list);
  va_end(list);
  line_add(&line, "{\"state\":\"changed\",\"kind\":\"%s\",\"detail\":", kind);
  line_add_string(&line, detail.text);
  line_add(&line, ",\"rounds\":%llu,\"elapsed_us\":%llu,\"at_ns\":%llu,", (number)whole_rounds,
           (number)((now_ns() - started) / MICROSECOND), (number)now_ns());
  ticks_describe(ticks, &line);
  line_add(&line, "}");
  line_send(&line);
  remove_folder();
  _exit(EXIT_CORRUPT);
}

void expect(const char *kind, const char *what, long long wanted, long long found) {
  if (wanted != found) changed(kind, "%s: set %lld (%#llx), found %lld (%#llx)", what, wanted, wanted, found, found);
}

static unsigned index_of(const struct kind *kind) {
  unsigned index = 0;
  while (kinds[index] != kind) index++;
  return index;
}

void count_round(const struct kind *kind) { rounds[index_of(kind)]++; }

// Another thread may run before the ticking one after a stop: the gap that lasts counts too.
uint64_t lost_time(void) {
  struct ticks copy = ticks_read(ticks);
  uint64_t now = now_ns(), gap = now > copy.last ? now - copy.last : 0;
  return copy.lost + (gap > 2 * copy.interval ? gap : 0);
}

uint64_t stood_still_until(void) {
  struct ticks copy = ticks_read(ticks);
  uint64_t now = now_ns();
  return now > copy.last + 2 * copy.interval ? now : copy.lost_until;
}

bool spoil_now(const struct kind *kind) {
  static atomic_flag spoiled = ATOMIC_FLAG_INIT;
  return spoil_wanted && !strcmp(kind->name, options.corrupt_kind) && !atomic_flag_test_and_set(&spoiled);
}

// -- Kinds

static void collect_kinds(const struct kind *list) {
  for (; list->name; list++) {
    if (kinds_count == MOST_KINDS) fail("too many kinds");
    kinds[kinds_count++] = list;
  }
}

static void choose(const char *name, bool wanted) {
  bool known = !strcmp(name, "all") || !strcmp(name, "default");
  for (unsigned index = 0; index < kinds_count; index++) {
    bool same = !strcmp(name, kinds[index]->name);
    known |= same;
    if (same || !strcmp(name, "all") || (!strcmp(name, "default") && !kinds[index]->by_request)) chosen[index] = wanted;
  }
  errno = 0;
  if (!known) fail("--kinds %s: unknown", name);
}

static void choose_kinds(const char *list) {
  char copy[2048], *rest = copy;
  snprintf(copy, sizeof copy, "%s", list);
  if (*copy == '-') choose("default", true);
  for (char *name; (name = strsep(&rest, ","));) choose(name + (*name == '-'), *name != '-');
  if (!options.churn) choose("churn", false);
}

// -- The threads that change and check

struct runner {
  bool of_thread;
  struct random random;
  void *states[MOST_KINDS];
};

static bool runs(const struct runner *runner, unsigned index) {
  return chosen[index] && !kinds[index]->start && kinds[index]->of_thread == runner->of_thread && runner->states[index];
}

static void prepare_runner(struct runner *runner) {
  for (unsigned index = 0; index < kinds_count; index++) {
    const struct kind *kind = kinds[index];
    if (!chosen[index] || kind->start || kind->of_thread != runner->of_thread) continue;
    // A page more, so that a state of no size has an address too.
    runner->states[index] = map_memory(kind->size + PAGE, MAP_PRIVATE);
    if (kind->prepare && !kind->prepare(runner->states[index], &runner->random)) {
      left_out[index] = true;
      runner->states[index] = NULL;
    } else kind->change(runner->states[index], &runner->random);
  }
  preparing--;
}

// In each round every kind is checked and changed; how long a state lasts is about the interval.
static void *__attribute__((noreturn)) run(void *argument) {
  struct runner *runner = argument;
  prepare_runner(runner);
  for (;;) {
    for (unsigned index = 0; index < kinds_count; index++) {
      if (!runs(runner, index)) continue;
      const struct kind *kind = kinds[index];
      if (kind->spoil && spoil_now(kind)) kind->spoil(runner->states[index]);
      kind->check(runner->states[index]);
      kind->change(runner->states[index], &runner->random);
      rounds[index]++;
    }
    if (!runner->of_thread) whole_rounds++;
    sleep_until(now_ns() + options.interval * MICROSECOND);
  }
}

static void start_runners(void) {
  static struct runner runners[INSTANCES];
  preparing = INSTANCES;
  for (unsigned index = 0; index < INSTANCES; index++) {
    runners[index].of_thread = index > 0;
    runners[index].random.state = mix(options.seed ^ mix(index));
    start_thread(run, &runners[index], 256 * 1024);
  }
  while (preparing) sleep_until(now_ns() + MILLISECOND);
  for (unsigned index = 0; index < kinds_count; index++)
    if (chosen[index] && kinds[index]->start) kinds[index]->start(kinds[index]);
}

// -- The main thread

static void report(bool final) {
  static struct line line;
  const char *separator = "";
  line_add(&line, "{\"state\":\"ok\",\"rounds\":%llu,\"kinds\":{", (number)whole_rounds);
  for (unsigned index = 0; index < kinds_count; index++) {
    if (!chosen[index] || left_out[index]) continue;
    line_add(&line, "%s\"%s\":%llu", separator, kinds[index]->name, (number)rounds[index]);
    separator = ",";
  }
  line_add(&line, "},\"left_out\":[");
  separator = "";
  for (unsigned index = 0; index < kinds_count; index++) {
    if (!left_out[index]) continue;
    line_add(&line, "%s\"%s\"", separator, kinds[index]->name);
    separator = ",";
  }
  line_add(&line, "],\"elapsed_us\":%llu,\"final\":%s,", (number)((now_ns() - started) / MICROSECOND),
           final ? "true" : "false");
  ticks_describe(ticks, &line);
  line_add(&line, "}");
  line_send(&line);
}

// From here on nothing counts as changed: the files vanish while their kinds still run.
static void __attribute__((noreturn)) finish(void) {
  while (atomic_flag_test_and_set(&told)) sleep_until(now_ns() + SECOND);
  report(true);
  remove_folder();
  _exit(0);
}

static void __attribute__((noreturn)) serve(void) {
  for (;;) {
    control_wait(20 * MILLISECOND);
    uint64_t elapsed = now_ns() - started;
    if (options.corrupt_after && elapsed > options.corrupt_after * MILLISECOND) spoil_wanted = true;
    if (atomic_exchange(&control_reset, false)) ticks_reset();
    if (atomic_exchange(&control_verdict, false)) report(false);
    if (control_stop || (options.run_for && elapsed > options.run_for * SECOND)) finish();
  }
}

// -- Start

static char folder[4096];

static void make_folder(void) {
  const char *candidates[] = {options.folder ? options.folder : "/tmp", "/dev/shm", "/", "."};
  for (unsigned index = 0; index < (options.folder ? 1 : 4); index++) {
    snprintf(folder, sizeof folder, "%s/changer.%d", candidates[index], getpid());
    if (mkdir(folder, 0755) && errno != EEXIST) continue;
    changer_folder = realpath(folder, NULL);
    if (changer_folder) return;
  }
  fail("no folder for files, use --folder");
}

// Names are known: no reading of folders while other threads still use them.
static void remove_folder(void) {
  static const char *const names[] = {"file0", "file1", "file2", "one/mark", "two/mark", "one", "two", NULL};
  char path[8192];
  for (int index = 0; names[index]; index++) {
    snprintf(path, sizeof path, "%s/%s", changer_folder, names[index]);
    if (unlink(path)) rmdir(path);
  }
  rmdir(changer_folder);
}

static void show_help(void) {
  dprintf(STDOUT_FILENO,
          "usage: changer [options]\n"
          "Changes process state of every kind and verifies that it finds what it set.\n"
          "  --kinds LIST             kinds with commas between, `default`, `all`, -NAME to leave one out (default)\n"
          "  --interval MICROSECONDS  pause between two rounds (1000)\n"
          "  --thread-churn on|off    threads that start and end all the time (on)\n"
          "  --folder FOLDER          where files may be made (the first that works of /tmp /dev/shm / .)\n"
          "  --seed N                 another seed, other changes (1)\n"
          "  --run-for SECONDS        end after this time, 0 for never (0)\n"
          "SIGUSR1 asks for a verdict (one line of JSON), SIGUSR2 forgets the gaps, SIGTERM ends.\n"
          "Exit status: 0, 2 wrong use, 3 a state was not what had been set.\n"
          "Kinds (in brackets: only if asked for):");
  for (unsigned index = 0; index < kinds_count; index++)
    dprintf(STDOUT_FILENO, kinds[index]->by_request ? " [%s]" : " %s", kinds[index]->name);
  dprintf(STDOUT_FILENO, "\n");
  _exit(0);
}

static void parse_options(int count, char **arguments) {
  enum { KINDS = 1, INTERVAL, CHURN, FOLDER, SEED, RUN_FOR, HELP, CORRUPT_AFTER, CORRUPT_KIND };
  static const char *const switches[] = {"off", "on", NULL};
  static const struct option table[] = {{"kinds", 1, 0, KINDS}, {"interval", 1, 0, INTERVAL},
      {"thread-churn", 1, 0, CHURN}, {"folder", 1, 0, FOLDER}, {"seed", 1, 0, SEED}, {"run-for", 1, 0, RUN_FOR},
      {"help", 0, 0, HELP}, {"corrupt-after", 1, 0, CORRUPT_AFTER}, {"corrupt-kind", 1, 0, CORRUPT_KIND}, {0}};
  options.corrupt_kind = "umask";
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    if (choice == '?') _exit(EXIT_WRONG_USE);
    const char *name = table[index].name;
    switch (choice) {
      case KINDS: options.kinds = optarg; break;
      case INTERVAL: options.interval = parse_number(name, optarg, 1, 1000000000); break;
      case CHURN: options.churn = parse_choice(name, optarg, switches); break;
      case FOLDER: options.folder = optarg; break;
      case SEED: options.seed = parse_number(name, optarg, 0, UINT64_MAX); break;
      case RUN_FOR: options.run_for = parse_number(name, optarg, 0, 1000000000); break;
      case CORRUPT_AFTER: options.corrupt_after = parse_number(name, optarg, 1, 1000000000); break;
      case CORRUPT_KIND: options.corrupt_kind = optarg; break;
      case HELP: show_help();
    }
  }
  errno = 0;
  if (optind < count) fail("%s: not an option", arguments[optind]);
  choose_kinds(options.kinds);
}

int main(int count, char **arguments) {
  collect_kinds(signal_kinds), collect_kinds(process_kinds), collect_kinds(file_kinds);
  collect_kinds(thread_kinds), collect_kinds(blocked_kinds);
  parse_options(count, arguments);
  control_install();
  started = now_ns();
  make_folder();
  ticks = ticks_start(NULL, MILLISECOND);
  start_runners();
  static struct line line;
  line_add(&line, "{\"ready\":\"changer\",\"pid\":%d}", getpid());
  line_send(&line);
  serve();
}
