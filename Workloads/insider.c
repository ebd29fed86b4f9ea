// Talks to itself: TCP connections and UDP sockets with both ends in this process, on the loopback and on an address of the
// container. Some are idle, some always have data under way in both directions, some are as full as they get.
//
//   insider ADDRESS PAIRS    PAIRS connections on each of both addresses.
//
// Every byte follows from its place. SIGUSR1 asks for a verdict, one line of JSON. Exit status 3: something was lost.
#define _GNU_SOURCE
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IDLE, FLOWING, FULL, USES, MOST = 4096 };

struct stream {
  int from, to;
  uint64_t id, sent, received;
};
struct pair {
  struct stream streams[2];
  unsigned use;
};

static struct pair *pairs;
static unsigned count, datagram_pairs;
static struct stream datagrams[4];  // One packet is one number.
static uint64_t rounds;

static void __attribute__((format(printf, 1, 2), noreturn)) lost(const char *format, ...) {
  static struct line line, detail;
  va_list list;
  va_start(list, format);
  line_add_list(&detail, format, list);
  va_end(list);
  line_add(&line, "{\"oracle\":\"lost\",\"detail\":");
  line_add_string(&line, detail.text);
  line_add(&line, ",\"rounds\":%llu}", (unsigned long long)rounds);
  line_send(&line);
  _exit(EXIT_CORRUPT);
}

static uint8_t byte_of(const struct stream *stream, uint64_t place) { return (uint8_t)mix(place ^ stream->id << 40); }

// -- Sockets

static struct sockaddr_in any_port(const char *host) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("%s: not an address", host);
  return address;
}

static void connect_pairs(const char *host, unsigned wanted) {
  struct sockaddr_in address = any_port(host);
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (void *)&address, size) || listen(listener, 16) || getsockname(listener, (void *)&address, &size))
    fail("listening on %s", host);
  for (unsigned made = 0; made < wanted; made++, count++) {
    int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(one, (void *)&address, size)) fail("connecting to %s", host);
    int other = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct pair *pair = &pairs[count];
    pair->use = count % USES;
    pair->streams[0] = (struct stream){.from = one, .to = other, .id = 2 * count};
    pair->streams[1] = (struct stream){.from = other, .to = one, .id = 2 * count + 1};
  }
  if (wanted % 2) close(listener);  // One address keeps its listener, which is on the port of its connections.
}

static void connect_datagrams(const char *host) {
  int ends[2];
  struct sockaddr_in addresses[2];
  socklen_t size = sizeof addresses[0];
  for (int end = 0; end < 2; end++) {
    addresses[end] = any_port(host);
    ends[end] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(ends[end], (void *)&addresses[end], size) || getsockname(ends[end], (void *)&addresses[end], &size))
      fail("binding to %s", host);
  }
  for (int end = 0; end < 2; end++) {
    if (connect(ends[end], (void *)&addresses[1 - end], size)) fail("connecting a UDP socket on %s", host);
    datagrams[datagram_pairs++] = (struct stream){.from = ends[end], .to = ends[1 - end]};
  }
}

// -- What goes over them

static void send_some(struct stream *stream, size_t most) {
  static uint8_t bytes[65536];
  for (size_t index = 0; index < most; index++) bytes[index] = byte_of(stream, stream->sent + index);
  ssize_t sent = send(stream->from, bytes, most, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) lost("sending on fd %d: %s", stream->from, strerror(errno));
  if (sent > 0) stream->sent += (uint64_t)sent;
}

static void receive_some(struct stream *stream, size_t most) {
  static uint8_t bytes[65536];
  ssize_t received = recv(stream->to, bytes, most, MSG_DONTWAIT);
  if (received == 0) lost("fd %d: the other end has closed", stream->to);
  if (received < 0 && errno != EAGAIN) lost("receiving on fd %d: %s", stream->to, strerror(errno));
  for (ssize_t index = 0; index < received; index++)
    if (bytes[index] != byte_of(stream, stream->received + (uint64_t)index))
      lost("fd %d: byte %llu is wrong", stream->to, (unsigned long long)stream->received + (unsigned long long)index);
  if (received > 0) stream->received += (uint64_t)received;
}

static void work(struct pair *pair) {
  for (int way = 0; way < 2; way++) {
    struct stream *stream = &pair->streams[way];
    switch (pair->use) {
      case IDLE:
        if (rounds % 100 == 99) send_some(stream, 8);
        receive_some(stream, 8);
        break;
      case FLOWING:
        send_some(stream, 1 + (size_t)(mix(rounds) % 6000));
        receive_some(stream, 4000);
        break;
      default:
        send_some(stream, sizeof(uint8_t[65536]));
        if (rounds % 50 == 0) receive_some(stream, 30000);
    }
  }
}

static void exchange_datagrams(struct stream *stream) {
  uint64_t number;
  if (stream->sent - stream->received < 8 && send(stream->from, &stream->sent, 8, 0) == 8) stream->sent++;
  if (rounds % 20) return;  // So that some wait.
  while (recv(stream->to, &number, 8, 0) == 8)
    if (number != stream->received++) lost("fd %d: datagram %llu", stream->to, (unsigned long long)number);
  if (errno != EAGAIN) lost("datagrams on fd %d: %s", stream->to, strerror(errno));
}

// Everything that was sent has to arrive: nothing may have got stuck.
static void check_all(void) {
  uint64_t deadline = now_ns() + 60 * SECOND;
  for (unsigned index = 0; index < count; index++)
    for (int way = 0; way < 2; way++) {
      struct stream *stream = &pairs[index].streams[way];
      while (stream->received < stream->sent) {
        receive_some(stream, 65536);
        if (now_ns() > deadline)
          lost("pair %u: %llu bytes are missing", index, (unsigned long long)(stream->sent - stream->received));
      }
    }
}

static void report(void) {
  static struct line line;
  uint64_t received = 0;
  for (unsigned index = 0; index < count; index++) received += pairs[index].streams[0].received;
  line_add(&line, "{\"oracle\":\"ok\",\"pairs\":%u,\"received\":%llu,\"rounds\":%llu}", count,
           (unsigned long long)received, (unsigned long long)rounds);
  line_send(&line);
}

int main(int arguments_count, char **arguments) {
  if (arguments_count != 3) fail("usage: insider ADDRESS PAIRS");
  unsigned wanted = (unsigned)parse_number("PAIRS", arguments[2], 1, MOST / 2);
  pairs = map_memory(MOST * sizeof *pairs, MAP_PRIVATE);
  control_install();
  connect_pairs("127.0.0.1", wanted);
  connect_pairs(arguments[1], wanted);
  connect_datagrams("127.0.0.1");
  connect_datagrams(arguments[1]);
  for (unsigned index = 0; index < count; index++) work(&pairs[index]);
  static struct line line;
  line_add(&line, "{\"ready\":\"insider\"}");
  line_send(&line);
  while (!control_stop) {
    for (unsigned index = 0; index < count; index++) work(&pairs[index]);
    for (unsigned index = 0; index < datagram_pairs; index++) exchange_datagrams(&datagrams[index]);
    rounds++;
    if (atomic_exchange(&control_verdict, false)) {
      check_all();
      report();
    }
    control_wait(MILLISECOND);
  }
  return 0;
}
