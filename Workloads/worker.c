// The stateful service of the distributed application: keeps a running digest of every session and a memory of pages,
// one of which each request rewrites, and has the store hold the digests.
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "distributed.h"

enum { WORDS = PAGE / 8 };

static struct {
  unsigned port;
  const char *store;
  uint64_t memory;
} options = {.port = 9001, .memory = 16 << 20};

static int poller, listening;
static struct stream *store;
static struct {
  uint64_t count, digest;
} sessions[MOST_SESSIONS];
static uint64_t served, bad_pages;

// -- Pages: each holds its number, its version and words that follow from both; `versions` and the sum of all tell what
// they must hold.

static uint64_t (*pages)[WORDS];
static uint32_t *versions;
static uint64_t page_count, page_sum;

static uint64_t page_base(uint64_t number, uint64_t version) { return mix(mix(number) ^ version); }

static void write_page(uint64_t number) {
  uint64_t version = ++versions[number], base = page_base(number, version);
  page_sum += base;
  pages[number][0] = number, pages[number][1] = version;
  for (unsigned word = 2; word < WORDS; word++) pages[number][word] = (base + word) * 0x9e3779b97f4a7c15;
}

static bool page_is_good(uint64_t number) {
  const uint64_t *page = pages[number];
  uint64_t base = page_base(number, page[1]);
  if (page[0] != number || page[1] != versions[number]) return false;
  for (unsigned word = 2; word < WORDS; word++)
    if (page[word] != (base + word) * 0x9e3779b97f4a7c15) return false;
  return true;
}

static void rewrite_page(uint64_t number) {
  if (!page_is_good(number)) bad_pages++;
  page_sum -= page_base(number, versions[number]);
  write_page(number);
}

static uint64_t count_bad_pages(void) {
  uint64_t bad = bad_pages, sum = 0;
  for (uint64_t number = 0; number < page_count; number++) {
    if (!page_is_good(number)) bad++;
    sum += page_base(number, versions[number]);
  }
  return bad + (sum != page_sum);
}

static void make_pages(void) {
  page_count = options.memory / PAGE;
  pages = map_memory(page_count * PAGE, MAP_PRIVATE | MAP_NORESERVE);
  versions = map_memory(page_count * sizeof *versions, MAP_PRIVATE);
  for (uint64_t number = 0; number < page_count; number++) write_page(number);
}

// -- Requests that wait for the store, oldest first: it answers in order

struct waiting {
  struct stream *gateway;
  struct message message;
};

static struct {
  struct waiting *entries;
  size_t first, count, room;
} queue;

static void queue_add(struct waiting entry) {
  if (queue.count == queue.room) {
    size_t room = queue.room ? 2 * queue.room : 1024;
    struct waiting *entries = calloc(room, sizeof *entries);
    if (!entries) fail("memory for waiting requests");
    for (size_t index = 0; index < queue.count; index++)
      entries[index] = queue.entries[(queue.first + index) % queue.room];
    free(queue.entries);
    queue.entries = entries, queue.room = room, queue.first = 0;
  }
  queue.entries[(queue.first + queue.count++) % queue.room] = entry;
}

static void serve(struct stream *gateway, struct message message) {
  char command[128];
  int length;
  if (message.session >= MOST_SESSIONS) fail("session %" PRIu64 ": there are %d", message.session, MOST_SESSIONS);
  if (message.kind == REQUEST) {
    typeof(sessions[0]) *session = &sessions[message.session];
    message.count = ++session->count;
    message.digest = session->digest = mix(session->digest ^ mix(message.word + message.sequence));
    served++;
    rewrite_page(mix(message.word) % page_count);
    length = snprintf(command, sizeof command, "SET session:%" PRIu64 " %016" PRIx64 " GET\r\n", message.session,
                      message.digest);
  } else {
    length = snprintf(command, sizeof command, "GET session:none\r\n");
  }
  queue_add((struct waiting){gateway, message});
  stream_send(poller, store, command, (size_t)length);
}

static void answer(uint64_t stored) {
  if (!queue.count) fail("the store answered what nobody asked");
  struct waiting entry = queue.entries[queue.first];
  queue.first = (queue.first + 1) % queue.room;
  queue.count--;
  entry.message.stored = stored;
  if (entry.message.kind == STATUS) {
    entry.message.count = served;
    entry.message.digest = 0;
    for (unsigned index = 0; index < MOST_SESSIONS; index++)
      if (sessions[index].count) entry.message.digest += mix(index ^ sessions[index].digest);
    entry.message.stored = count_bad_pages();
  }
  stream_send(poller, entry.gateway, &entry.message, sizeof entry.message);
}

// The store says "$-1" for none, or "$16" and 16 digits.
static void serve_store(void) {
  if (!stream_read(store)) fail("the store closed the connection");
  size_t taken = 0;
  for (;;) {
    const char *text = (const char *)store->in + taken;
    size_t left = store->in_length - taken;
    if (left < 5) break;
    if (!memcmp(text, "$-1\r\n", 5)) {
      answer(0);
      taken += 5;
    } else if (!memcmp(text, "$16\r\n", 5)) {
      if (left < 23) break;
      answer(strtoull(text + 5, NULL, 16));
      taken += 23;
    } else {
      errno = 0;
      fail("the store answered %.*s", (int)(left < 80 ? left : 80), text);
    }
  }
  stream_take(store, taken);
}

static void serve_gateway(struct stream *gateway) {
  if (!stream_read(gateway)) {
    stream_close(gateway);
    return;
  }
  struct message *message = (struct message *)gateway->in;
  size_t whole = gateway->in_length / sizeof *message;
  for (size_t index = 0; index < whole; index++) serve(gateway, message[index]);
  stream_take(gateway, whole * sizeof *message);
}

static const char usage[] = "usage: worker --store ADDRESS:PORT [--port PORT] [--memory BYTES]";

static void parse_options(int count, char **arguments) {
  enum { PORT = 1, STORE, MEMORY };
  static const struct option table[] = {{"port", 1, 0, PORT}, {"store", 1, 0, STORE}, {"memory", 1, 0, MEMORY}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    switch (choice) {
      case PORT: options.port = (unsigned)parse_number("port", optarg, 1, 65535); break;
      case STORE: options.store = optarg; break;
      case MEMORY: options.memory = parse_size("memory", optarg); break;
      default: fail("%s", usage);
    }
  }
  if (!options.store || options.memory < PAGE) fail("%s", usage);
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  make_pages();
  poller = epoll_create1(EPOLL_CLOEXEC);
  store = distributed_connect(options.store);
  distributed_watch(poller, store->file, store);
  listening = distributed_listen(options.port);
  distributed_watch(poller, listening, &listening);
  for (;;) {
    struct epoll_event events[64];
    int ready = epoll_wait(poller, events, 64, -1);
    for (int index = 0; index < ready; index++) {
      struct stream *stream = events[index].data.ptr;
      if (events[index].data.ptr == &listening) {
        for (struct stream *gateway; (gateway = distributed_accept(listening));)
          distributed_watch(poller, gateway->file, gateway);
        continue;
      }
      if (stream->file < 0) continue;
      if (events[index].events & EPOLLOUT) stream_flush(poller, stream);
      if (stream == store) serve_store();
      else serve_gateway(stream);
    }
  }
}
