// A page dirtier with a memory oracle: writes pages at a steady rate and can tell whether its memory is exactly what
// it wrote. It measures its own gaps with a ticker, so a migration's downtime is known from inside.
//
// What the oracle detects. Each page holds its number, its generation, the place of its last write in the order of
// all writes of its thread, a checksum of this header, and a body derived from seed, page number and generation.
//  - Zero, misplaced and torn pages, foreign content: from the page alone.
//  - Stale pages: against a table of expected generations in ordinary memory.
//  - Stale pages together with an equally stale table: against the *digest*, the sum of a hash of (page, generation)
//    over all pages of the thread, which each write updates and stores in the page it writes. The newest page thus
//    vouches for all the others; one old page anywhere makes the sums differ.
//  - All pages, table and digests from one earlier instant (a missed last pass): the thread's count of writes lives
//    in a processor register only, never in memory, and must equal the order of the newest page.
//  - With sequential writing also in the manner of QEMU's migration test guest: every page has the generation of its
//    predecessor, with at most one edge, where it is one less, and the edge is where the thread goes on.
// Not detected, because it cannot be told from a pause: memory *and* registers of one earlier instant.
//
// A page is checked completely before it is rewritten, so that no corruption vanishes under a write; the whole memory
// is checked for a verdict, by every thread for its own part, between two of its writes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support.h"
#include "ticks.h"

typedef unsigned long long number;

enum { HEADER_WORDS = 6, BODY_WORDS = PAGE / 8 - HEADER_WORDS, MOST_THREADS = 256 };

struct page {
  uint64_t number, generation, order, digest, seed, check;
  uint64_t body[BODY_WORDS];
};

_Static_assert(sizeof(struct page) == PAGE, "a page is a page");

enum distribution { UNIFORM, SEQUENTIAL, ZIPF };
static const char *const distribution_names[] = {"uniform", "sequential", "zipf", NULL};

// How the rate changes within a period; the mean is the same for all.
enum profile { CONSTANT, SQUARE, SINE, BURSTS };
static const char *const profile_names[] = {"constant", "square", "sine", "bursts", NULL};

// Ways to spoil the memory on purpose: they show that the oracle can fail.
enum spoil { SPOIL_BIT, SPOIL_ZERO, SPOIL_STALE, SPOIL_BOTH, SPOIL_SWAP };
static const char *const spoil_names[] = {"bit", "zero", "stale", "both", "swap", NULL};

static struct {
  uint64_t memory, rate, write_size, profile_period, seed, run_for, corrupt_after;
  unsigned share, working_set, threads, port;
  enum distribution distribution;
  enum profile profile;
  enum spoil spoil;
  bool idle, huge;
  const char *ticks, *verdict;
} options = {.memory = 64 << 20, .rate = 1000, .write_size = PAGE, .profile_period = 1000, .seed = 1, .share = 100,
             .working_set = 100, .threads = 1};

struct bad {
  const char *reason;
  uint64_t page, word, expected, found;
};

struct worker {
  struct page *pages;      // Its slice of the memory, which no other thread writes.
  uint32_t *generations;   // What each page of the slice must hold.
  uint64_t first, count;   // The slice, in pages of the whole memory.
  uint64_t hot;            // How many of them, from the start, are rewritten.
  uint64_t digest;
  struct random random;
  struct zipf {
    double theta, alpha, zeta, eta;
    uint64_t stride;
  } zipf;
  uint64_t request_seen;
  bool spoiled;
  struct bad bad;                 // The first corruption found; published by has_bad.
  atomic_bool has_bad;
  _Atomic uint64_t writes;        // For the report only; the oracle counts in its register.
  _Atomic uint64_t request_done;  // The last request this worker has answered.
};

static struct worker workers[MOST_THREADS];
static struct page *memory;
static atomic_bool spoil_wanted;
static _Atomic uint64_t request = 1;  // Raised by one for each verdict; the first is the filling.
static uint64_t started;
static struct ticks *ticks;

// How many writes this thread has made, the filling included: the one number that is not in memory. Set by a worker
// before anything else and never used by other threads.
#if defined(__x86_64__)
register uint64_t written __asm__("r15");
#elif defined(__aarch64__)
register uint64_t written __asm__("x28");
#else
#error "name a callee-saved register for this architecture"
#endif

// -- Pages

static uint64_t body_base(uint64_t number, uint64_t generation) {
  return mix(options.seed ^ mix(number ^ mix(generation)));
}

static inline uint64_t body_word(uint64_t base, unsigned index) {
  uint64_t word = (base + index) * 0x9e3779b97f4a7c15;
  return word ^ (word >> 29);
}

static unsigned rewritten_words(void) {
  unsigned words = (BODY_WORDS * options.share + 99) / 100;
  return words;
}

static uint64_t page_check(const struct page *page) {
  return mix(page->number ^ mix(page->generation ^ mix(page->order ^ mix(page->digest ^ page->seed))));
}

static uint64_t fingerprint(uint64_t number, uint64_t generation) { return mix(mix(number) ^ generation); }

static void write_header(struct page *page, uint64_t number, uint64_t generation, uint64_t order, uint64_t digest) {
  page->number = number;
  page->generation = generation;
  page->order = order;
  page->digest = digest;
  page->seed = options.seed;
  page->check = page_check(page);
}

static void write_body(struct page *page, uint64_t number, uint64_t generation, unsigned from, unsigned to) {
  uint64_t base = body_base(number, generation);
  for (unsigned index = from; index < to; index++) page->body[index] = body_word(base, index);
}

static bool is_zero(const struct page *page) {
  const uint64_t *words = (const uint64_t *)page;
  for (unsigned index = 0; index < PAGE / 8; index++)
    if (words[index]) return false;
  return true;
}

// The first word of the range that differs from the generation's, or `to`.
static unsigned find_difference(const struct page *page, uint64_t generation, unsigned from, unsigned to) {
  uint64_t base = body_base(page->number, generation);
  for (unsigned index = from; index < to; index++)
    if (page->body[index] != body_word(base, index)) return index;
  return to;
}

// Whether the page is exactly what the table says; if not, `bad` tells why.
static bool page_is_good(const struct page *page, uint64_t number, uint64_t generation, struct bad *bad) {
  unsigned edge = rewritten_words();
  *bad = (struct bad){.page = number};
  if (page->check != page_check(page) || page->seed != options.seed) {
    bad->reason = is_zero(page) ? "zero" : "header";
    bad->expected = page_check(page), bad->found = page->check;
  } else if (page->number != number) {
    bad->reason = "misplaced", bad->expected = number, bad->found = page->number;
  } else if (page->generation != generation) {
    bad->reason = page->generation < generation ? "stale" : "future";
    bad->expected = generation, bad->found = page->generation;
  } else {
    unsigned index = find_difference(page, generation, 0, edge);
    if (index == edge) index = find_difference(page, 1, edge, BODY_WORDS);
    if (index == BODY_WORDS) return true;
    bad->reason = "torn";
    bad->word = HEADER_WORDS + index;
    bad->expected = body_word(body_base(number, index < edge ? generation : 1), index);
    bad->found = page->body[index];
  }
  return false;
}

// -- A worker's writing

static void note_bad(struct worker *worker, struct bad bad) {
  if (worker->has_bad) return;  // The first is the one to look at.
  worker->bad = bad;
  worker->has_bad = true;
}

static void write_page(struct worker *worker, uint64_t index, uint64_t generation, unsigned words) {
  uint64_t page = worker->first + index;
  written++;
  worker->digest += fingerprint(page, generation);
  write_header(&worker->pages[index], page, generation, written, worker->digest);
  write_body(&worker->pages[index], page, generation, 0, words);
  worker->generations[index] = (uint32_t)generation;
}

static void rewrite_page(struct worker *worker, uint64_t index) {
  uint64_t page = worker->first + index, generation = worker->generations[index];
  struct bad bad;
  if (!page_is_good(&worker->pages[index], page, generation, &bad)) note_bad(worker, bad);
  worker->digest -= fingerprint(page, generation);
  write_page(worker, index, generation + 1, rewritten_words());
}

static void fill(struct worker *worker) {
  for (uint64_t index = 0; index < worker->count; index++) write_page(worker, index, 1, BODY_WORDS);
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

// Gray et al., "Quickly generating billion-record synthetic databases" (1994), with the exponent 0.99 of YCSB.
static void prepare_zipf(struct worker *worker) {
  struct zipf *zipf = &worker->zipf;
  double items = (double)worker->hot, zeta = 0;
  zipf->theta = 0.99;
  for (uint64_t rank = 1; rank <= worker->hot; rank++) zeta += pow((double)rank, -zipf->theta);
  zipf->zeta = zeta;
  zipf->alpha = 1 / (1 - zipf->theta);
  zipf->eta = (1 - pow(2 / items, 1 - zipf->theta)) / (1 - (1 + pow(0.5, zipf->theta)) / zeta);
  // Popular pages are spread over the slice: neighbours in rank are a stride apart.
  for (zipf->stride = worker->hot * 618 / 1000 | 1; greatest_common_divisor(worker->hot, zipf->stride) != 1;)
    zipf->stride += 2;
}

static uint64_t choose_zipf(struct worker *worker) {
  const struct zipf *zipf = &worker->zipf;
  double chance = (double)(random_next(&worker->random) >> 11) * 0x1p-53, at = chance * zipf->zeta;
  uint64_t rank = at < 1 ? 0
                  : at < 1 + pow(0.5, zipf->theta)
                      ? 1
                      : (uint64_t)((double)worker->hot * pow(zipf->eta * chance - zipf->eta + 1, zipf->alpha));
  return rank % worker->hot * zipf->stride % worker->hot;
}

static uint64_t choose_page(struct worker *worker) {
  switch (options.distribution) {
    case SEQUENTIAL: return (written - worker->count) % worker->hot;
    case ZIPF: return choose_zipf(worker);
    default: return random_below(&worker->random, worker->hot);
  }
}

// -- A worker's checks

// Generations must fall by one at most once, where the sweep goes on.
static void check_sweep(struct worker *worker) {
  uint64_t cursor = (written - worker->count) % worker->hot;
  for (uint64_t index = 1; index < worker->hot; index++) {
    uint64_t expected = worker->pages[index - 1].generation - (index == cursor);
    if (worker->pages[index].generation == expected) continue;
    note_bad(worker, (struct bad){"sweep", worker->first + index, 1, expected, worker->pages[index].generation});
    return;
  }
}

// The newest page must be as new as the thread's own count, and vouch for all others.
static void check_order(struct worker *worker) {
  const struct page *newest = worker->pages;
  uint64_t digest = 0;
  for (uint64_t index = 0; index < worker->count; index++) {
    const struct page *page = &worker->pages[index];
    digest += fingerprint(page->number, page->generation);
    if (page->order > newest->order) newest = page;
  }
  if (newest->order != written)
    note_bad(worker, (struct bad){"order", newest->number, 2, written, newest->order});
  else if (newest->digest != digest)
    note_bad(worker, (struct bad){"digest", newest->number, 3, newest->digest, digest});
}

static void check_all(struct worker *worker) {
  struct bad bad;
  for (uint64_t index = 0; index < worker->count && !worker->has_bad; index++)
    if (!page_is_good(&worker->pages[index], worker->first + index, worker->generations[index], &bad))
      note_bad(worker, bad);
  check_order(worker);
  if (options.distribution == SEQUENTIAL) check_sweep(worker);
}

// -- Spoiling on purpose

static void spoil_page(struct worker *worker) {
  uint64_t index = random_below(&worker->random, worker->hot), generation = worker->generations[index];
  struct page *page = &worker->pages[index], *other = &worker->pages[(index + 1) % worker->count], kept = *other;
  uint64_t older = generation > 1 ? generation - 1 : 0;
  switch (options.spoil) {
    case SPOIL_BIT: ((uint8_t *)page)[random_below(&worker->random, PAGE)] ^= 4; break;
    case SPOIL_ZERO: memset(page, 0, PAGE); break;
    case SPOIL_SWAP: *other = *page, *page = kept; break;
    case SPOIL_BOTH: worker->generations[index] = (uint32_t)older; /* fall through */
    case SPOIL_STALE:
      write_header(page, worker->first + index, older, 1, 0);
      write_body(page, worker->first + index, older, 0, rewritten_words());
  }
}

// -- A worker's life

// Between two writes: answer what the main thread asks.
static void attend(struct worker *worker) {
  uint64_t wanted = atomic_load_explicit(&request, memory_order_acquire);
  if (worker == workers && spoil_wanted && !worker->spoiled) spoil_page(worker), worker->spoiled = true;
  if (wanted == worker->request_seen) return;
  check_all(worker);
  worker->request_seen = wanted;
  atomic_store_explicit(&worker->request_done, wanted, memory_order_release);
}

// Sleeps in pieces, so that a verdict never waits for a slow rate.
static void attend_until(struct worker *worker, uint64_t instant) {
  for (uint64_t now = now_ns(); now < instant; now = now_ns()) {
    attend(worker);
    sleep_until(instant - now > 20 * MILLISECOND ? now + 20 * MILLISECOND : instant);
  }
  attend(worker);
}

// Each event writes --write-size contiguous bytes (those past the working set's end at its start).
static void write_events(struct worker *worker, uint64_t count) {
  for (; count; count--) {
    uint64_t first = choose_page(worker);
    for (uint64_t part = 0; part < options.write_size / PAGE; part++) {
      attend(worker);
      rewrite_page(worker, (first + part) % worker->hot);
      atomic_store_explicit(&worker->writes, written - worker->count, memory_order_relaxed);
    }
  }
}

// The profile's part of a period's events that are due in the first `share` of the period; both 0 to 1.
static double profile_integral(double share) {
  switch (options.profile) {
    case SQUARE: return share < 0.5 ? 1.8 * share : 0.9 + 0.2 * (share - 0.5);
    case SINE: return share + (1 - cos(2 * M_PI * share)) / (2 * M_PI);
    case BURSTS: return share < 0.1 ? 10 * share : 1;
    default: return share;
  }
}

// Events on a fixed grid of instants: about one a millisecond, or one for each event if the rate is constant and lower
// than that. After a long gap there is no burst: the profile goes on where it was.
static void __attribute__((noreturn)) write_at_rate(struct worker *worker, double rate) {
  double step = options.profile == CONSTANT && rate < 1000 ? (double)SECOND / rate : (double)MILLISECOND;
  double period = (double)(options.profile_period * MILLISECOND), late = 100 * (double)MILLISECOND;
  double from = (double)now_ns();
  uint64_t done = 0;
  for (double next = step;; next += step) {
    double now = (double)now_ns();
    if (now > from + next + late) from = now - next;
    else attend_until(worker, (uint64_t)(from + next));
    double periods = floor(next / period), share = next / period - periods;
    // Against rounding: an event that is due at this very instant is due.
    uint64_t due = (uint64_t)((periods + profile_integral(share)) * rate * period / (double)SECOND + 1e-6);
    write_events(worker, due > done ? due - done : 0);
    done = due;
  }
}

static void *__attribute__((noreturn)) work(void *argument) {
  struct worker *worker = argument;
  written = 0;
  prctl(PR_SET_TIMERSLACK, 1);
  if (options.distribution == ZIPF) prepare_zipf(worker);
  fill(worker);
  atomic_store_explicit(&worker->request_done, worker->request_seen = 1, memory_order_release);
  if (options.idle)
    for (;;) attend_until(worker, now_ns() + 20 * MILLISECOND);
  while (!options.rate) write_events(worker, 1000);
  write_at_rate(worker, (double)options.rate * PAGE / (double)options.write_size / options.threads);
}

// -- A thread for clients

static uint64_t all_writes(void) {
  uint64_t writes = 0;
  for (unsigned index = 0; index < options.threads; index++) writes += workers[index].writes;
  return writes;
}

struct client {
  unsigned have;
  uint64_t request;
};

// Takes what has come, and answers what is whole. False: the client has gone.
static bool answer(int socket, struct client *client) {
  ssize_t count = recv(socket, (uint8_t *)&client->request + client->have, sizeof client->request - client->have, 0);
  if (count <= 0) return false;
  client->have += (unsigned)count;
  if (client->have < sizeof client->request) return true;
  client->have = 0;
  uint64_t words[] = {client->request, all_writes()};
  return send(socket, words, sizeof words, MSG_NOSIGNAL) == sizeof words;
}

// A request is eight bytes; its answer is the same eight bytes, and the number of pages written so far.
static void *__attribute__((noreturn)) serve_clients(void *argument) {
  enum { CLIENTS = 8 };
  struct client clients[CLIENTS + 1] = {0};
  struct pollfd polled[CLIENTS + 1] = {{.fd = *(int *)argument, .events = POLLIN}};
  nfds_t count = 1;
  for (;;) {
    polled[0].events = count <= CLIENTS ? POLLIN : 0;
    if (poll(polled, count, -1) < 0) continue;
    for (nfds_t index = count; --index > 0;) {
      if (!polled[index].revents || answer(polled[index].fd, &clients[index])) continue;
      close(polled[index].fd);
      polled[index] = polled[--count];
      clients[index] = clients[count];
    }
    if (!polled[0].revents) continue;
    int socket = accept4(polled[0].fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
    if (socket < 0) continue;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    clients[count] = (struct client){0};
    polled[count++] = (struct pollfd){.fd = socket, .events = POLLIN};
  }
}

static void start_listening(void) {
  static int listener;
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
  int on = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) fail("--listen: no socket");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 8))
    fail("--listen %u: the port is not to be had", options.port);
  start_thread(serve_clients, &listener, 64 * 1024);
}

// -- The main thread: verdicts

static void describe_bad(struct line *line, const struct bad *bad) {
  line_add(line, "{\"page\":%llu,\"reason\":\"%s\",\"word\":%llu,\"expected\":\"%#llx\",\"found\":\"%#llx\"}",
           (number)bad->page, bad->reason, (number)bad->word, (number)bad->expected, (number)bad->found);
}

static const struct bad *first_bad(void) {
  for (unsigned index = 0; index < options.threads; index++)
    if (workers[index].has_bad) return &workers[index].bad;
  return NULL;
}

// Where nothing but the newest verdict is wanted; readers never see half of it.
static void store_verdict(const struct line *line) {
  char fresh[4096];
  if (!options.verdict) return;
  snprintf(fresh, sizeof fresh, "%s.new", options.verdict);
  int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return;
  bool whole = write(file, line->text, line->length) == (ssize_t)line->length && write(file, "\n", 1) == 1;
  close(file);
  if (whole) rename(fresh, options.verdict);
}

static void report(const char *verdict, bool final) {
  static struct line line;
  const struct bad *bad = first_bad();
  line_add(&line, "{\"oracle\":\"%s\",\"pages\":%llu,\"first_bad\":", bad ? "corrupt" : verdict,
           (number)(options.memory / PAGE));
  if (bad) describe_bad(&line, bad);
  else line_add(&line, "null");
  line_add(&line, ",\"writes\":%llu,\"elapsed_us\":%llu,\"verdicts\":%llu,\"final\":%s,", (number)all_writes(),
           (number)((now_ns() - started) / MICROSECOND), (number)(request - 1), final ? "true" : "false");
  ticks_describe(ticks, &line);
  line_add(&line, "}");
  store_verdict(&line);
  line_send(&line);
}

static void __attribute__((noreturn)) finish(const char *verdict) {
  report(verdict, true);
  _exit(first_bad() ? EXIT_CORRUPT : 0);
}

// Waits until every worker has answered. One that never does was lost, and its pages with it.
static void await_workers(void) {
  uint64_t patience = now_ns() + 120 * SECOND;
  for (unsigned index = 0; index < options.threads;) {
    if (atomic_load_explicit(&workers[index].request_done, memory_order_acquire) == request) {
      index++;
      continue;
    }
    control_wait(MILLISECOND);
    if (control_stop) finish("unchecked");
    if (now_ns() < patience) continue;
    note_bad(&workers[index], (struct bad){"silent thread", workers[index].first, 0, index, 0});
    return;
  }
}

static void ask_for_verdict(void) {
  atomic_fetch_add(&request, 1);
  await_workers();
}

static bool verdict_wanted(void) {
  bool wanted = atomic_exchange(&control_verdict, false);
  return wanted || (options.verdict && access(options.verdict, F_OK) && errno == ENOENT);
}

static void __attribute__((noreturn)) serve(void) {
  bool told = false;
  for (;;) {
    control_wait(20 * MILLISECOND);
    uint64_t elapsed = now_ns() - started;
    if (control_stop) finish("unchecked");
    if (options.corrupt_after && elapsed > options.corrupt_after * MILLISECOND) spoil_wanted = true;
    if (atomic_exchange(&control_reset, false)) ticks_reset();
    if (verdict_wanted()) ask_for_verdict(), told = first_bad(), report("ok", false);
    if (!told && first_bad()) told = true, report("ok", false);
    if (options.run_for && elapsed > options.run_for * SECOND) ask_for_verdict(), finish("ok");
  }
}

// -- Start

static const char usage[] =
    "usage: dirtier [options]\n"
    "Writes pages of its memory at a steady rate and verifies them.\n"
    "  --memory BYTES         memory to fill and write, K, M or G may follow (64M)\n"
    "  --rate N|idle          pages written a second by all threads, 0 for as fast as can be (1000)\n"
    "  --write-size BYTES     contiguous bytes that are written at once, pages of 4 KiB up to 1M (4K)\n"
    "  --profile NAME         how the rate varies around its mean: constant, square (1.8 and 0.2 times the mean, half\n"
    "                         a period each), sine (0 to 2 times), bursts (10 times for a tenth, then 0) (constant)\n"
    "  --profile-period MS    the profile's period, 10-3600000 (1000)\n"
    "  --share PERCENT        share of each page that a write changes, 1-100 (100)\n"
    "  --working-set PERCENT  share of the memory that is written again, 1-100 (100)\n"
    "  --distribution NAME    uniform, sequential or zipf (uniform)\n"
    "  --threads N            writing threads, each with its own slice (1)\n"
    "  --listen PORT          answer clients over TCP, eight bytes with the same and the pages written so far (no)\n"
    "  --huge-pages           ask for transparent huge pages\n"
    "  --seed N               another seed, another content and order (1)\n"
    "  --ticks FILE           tick into this file instead of anonymous shared memory\n"
    "  --verdict FILE         also keep the newest verdict here; remove the file to ask for one\n"
    "  --run-for SECONDS      verify and end after this time, 0 for never (0)\n"
    "SIGUSR1 asks for a verdict (one line of JSON), SIGUSR2 forgets the gaps, SIGTERM ends.\n"
    "Exit status: 0, 2 wrong use, 3 corruption found.\n";

static void parse_options(int count, char **arguments) {
  enum { MEMORY = 1, RATE, WRITE_SIZE, PROFILE, PROFILE_PERIOD, SHARE, WORKING_SET, DISTRIBUTION, THREADS, HUGE, SEED, TICKS, VERDICT, RUN_FOR, LISTEN, HELP,
         CORRUPT_AFTER, CORRUPT_KIND };
  static const struct option table[] = {
      {"memory", 1, 0, MEMORY}, {"rate", 1, 0, RATE}, {"write-size", 1, 0, WRITE_SIZE},
      {"profile", 1, 0, PROFILE}, {"profile-period", 1, 0, PROFILE_PERIOD}, {"share", 1, 0, SHARE}, {"working-set", 1, 0, WORKING_SET},
      {"distribution", 1, 0, DISTRIBUTION}, {"threads", 1, 0, THREADS}, {"huge-pages", 0, 0, HUGE},
      {"seed", 1, 0, SEED}, {"ticks", 1, 0, TICKS}, {"verdict", 1, 0, VERDICT}, {"listen", 1, 0, LISTEN}, {"run-for", 1, 0, RUN_FOR},
      {"help", 0, 0, HELP}, {"corrupt-after", 1, 0, CORRUPT_AFTER}, {"corrupt-kind", 1, 0, CORRUPT_KIND}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    if (choice == '?') _exit(EXIT_WRONG_USE);
    const char *name = table[index].name;
    switch (choice) {
      case MEMORY: options.memory = parse_size(name, optarg) / PAGE * PAGE; break;
      case RATE:
        options.idle = !strcmp(optarg, "idle") || !strcmp(optarg, "none");
        options.rate = options.idle ? 0 : parse_number(name, optarg, 0, 1000000000);
        break;
      case WRITE_SIZE:
        options.write_size = parse_size(name, optarg);
        if (options.write_size % PAGE || options.write_size < PAGE || options.write_size > 1 << 20)
          fail("--write-size %s: want a multiple of 4K from 4K to 1M", optarg);
        break;
      case PROFILE: options.profile = parse_choice(name, optarg, profile_names); break;
      case PROFILE_PERIOD: options.profile_period = parse_number(name, optarg, 10, 3600000); break;
      case SHARE: options.share = (unsigned)parse_number(name, optarg, 1, 100); break;
      case WORKING_SET: options.working_set = (unsigned)parse_number(name, optarg, 1, 100); break;
      case DISTRIBUTION: options.distribution = parse_choice(name, optarg, distribution_names); break;
      case THREADS: options.threads = (unsigned)parse_number(name, optarg, 1, MOST_THREADS); break;
      case HUGE: options.huge = true; break;
      case SEED: options.seed = parse_number(name, optarg, 0, UINT64_MAX); break;
      case TICKS: options.ticks = optarg; break;
      case VERDICT: options.verdict = optarg; break;
      case LISTEN: options.port = (unsigned)parse_number(name, optarg, 1, 65535); break;
      case RUN_FOR: options.run_for = parse_number(name, optarg, 0, 1000000000); break;
      case CORRUPT_AFTER: options.corrupt_after = parse_number(name, optarg, 1, 1000000000); break;
      case CORRUPT_KIND: options.spoil = parse_choice(name, optarg, spoil_names); break;
      case HELP: dprintf(STDOUT_FILENO, "%s", usage); _exit(0);
    }
  }
  errno = 0;
  if (optind < count) fail("%s: not an option", arguments[optind]);
  if (options.memory / PAGE < 2 * options.threads) fail("--memory: every thread needs two pages");
}

static void start_workers(void) {
  uint64_t pages = options.memory / PAGE;
  memory = map_memory(options.memory, MAP_PRIVATE | MAP_NORESERVE);
  uint32_t *generations = map_memory(pages * sizeof *generations, MAP_PRIVATE);
  if (options.huge && madvise(memory, options.memory, MADV_HUGEPAGE)) fail("--huge-pages");
  for (unsigned index = 0; index < options.threads; index++) {
    struct worker *worker = &workers[index];
    uint64_t end = pages * (index + 1) / options.threads;
    worker->first = pages * index / options.threads;
    worker->count = end - worker->first;
    worker->hot = worker->count * options.working_set / 100;
    if (!worker->hot) worker->hot = 1;
    worker->pages = memory + worker->first;
    worker->generations = generations + worker->first;
    worker->random.state = mix(options.seed ^ mix(index));
    start_thread(work, worker, 128 * 1024);
  }
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  control_install();
  started = now_ns();
  ticks = ticks_start(options.ticks, 100 * MICROSECOND);
  start_workers();
  await_workers();
  if (options.port) start_listening();
  started = now_ns();
  ticks_reset();  // Filling is not the steady state.
  static struct line line;
  line_add(&line, "{\"ready\":\"dirtier\",\"pid\":%d,\"pages\":%llu}", getpid(), (number)(options.memory / PAGE));
  line_send(&line);
  serve();
}
