// The message server of the edge services; see service.h.
#define _GNU_SOURCE
#include "service.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct peer {
  int socket;
  bool datagrams, broken;
  struct sockaddr_in address;  // Of the datagram that is being answered.
  size_t filled;
  unsigned char input[4 * MESSAGE_MOST];
};

static struct peer listener, datagrams = {.datagrams = true};
static int epoll;
static void (*handler)(const struct message *, struct peer *);

// -- Answers

static void send_whole(struct peer *peer, const unsigned char *bytes, size_t length) {
  while (length && !peer->broken) {
    ssize_t count = send(peer->socket, bytes, length, MSG_NOSIGNAL);
    if (count > 0) {
      bytes += count, length -= (size_t)count;
    } else if (errno == EAGAIN) {
      struct pollfd entry = {.fd = peer->socket, .events = POLLOUT};
      if (poll(&entry, 1, 10000) == 0) peer->broken = true;
    } else if (errno != EINTR) {
      peer->broken = true;
    }
  }
}

void answer(struct peer *peer, const void *messages, size_t length) {
  if (!peer->datagrams) {
    send_whole(peer, messages, length);
    return;
  }
  for (const unsigned char *at = messages, *end = at + length; at < end;) {
    struct message message;
    memcpy(&message, at, sizeof message);
    sendto(peer->socket, at, message.length, MSG_NOSIGNAL, (struct sockaddr *)&peer->address, sizeof peer->address);
    at += message.length;
  }
}

void answer_text(struct peer *peer, uint16_t kind, const char *text, size_t length) {
  struct message message = {.length = (uint32_t)(sizeof message + length), .kind = kind};
  answer(peer, &message, sizeof message);
  answer(peer, text, length);
}

// -- Messages

static void take_datagrams(void) {
  for (;;) {
    socklen_t size = sizeof datagrams.address;
    ssize_t count = recvfrom(datagrams.socket, datagrams.input, sizeof datagrams.input, 0,
                             (struct sockaddr *)&datagrams.address, &size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;
    const struct message *message = (const struct message *)datagrams.input;
    if ((size_t)count >= sizeof *message && message->length == (size_t)count) handler(message, &datagrams);
  }
}

// Hands on every message that is whole; what remains moves to the front.
static void take_messages(struct peer *peer) {
  size_t at = 0;
  while (!peer->broken && peer->filled - at >= sizeof(struct message)) {
    // A copy: a message may begin anywhere in the stream.
    union {
      struct message message;
      unsigned char bytes[MESSAGE_MOST];
    } whole;
    memcpy(&whole, peer->input + at, sizeof(struct message));
    size_t length = whole.message.length;
    if (length < sizeof(struct message) || length > MESSAGE_MOST) {
      peer->broken = true;
      break;
    }
    if (peer->filled - at < length) break;
    memcpy(&whole, peer->input + at, length);
    at += length;
    handler(&whole.message, peer);
  }
  memmove(peer->input, peer->input + at, peer->filled -= at);
}

static void take_stream(struct peer *peer) {
  ssize_t count = recv(peer->socket, peer->input + peer->filled, sizeof peer->input - peer->filled, 0);
  if (count > 0) {
    peer->filled += (size_t)count;
    take_messages(peer);
  } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
    peer->broken = true;
  }
  if (peer->broken) {
    close(peer->socket);
    free(peer);
  }
}

// -- The server's life

static void watch(struct peer *peer) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, peer->socket, &event)) fail("watching a socket");
}

static void accept_all(void) {
  for (int socket; (socket = accept4(listener.socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer) fail("no memory for a connection");
    peer->socket = socket;
    watch(peer);
  }
}

static void open_socket(struct peer *peer, int type, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int on = 1;
  peer->socket = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (peer->socket < 0) fail("opening a socket");
  if (type == SOCK_STREAM) setsockopt(peer->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(peer->socket, (struct sockaddr *)&address, sizeof address)) fail("port %u", port);
  if (type == SOCK_STREAM && listen(peer->socket, 512)) fail("listening");
  watch(peer);
}

static void *__attribute__((noreturn)) keep_answering(void *unused) {
  (void)unused;
  prctl(PR_SET_TIMERSLACK, 1);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, 64, -1);
    for (int index = 0; index < count; index++) {
      struct peer *peer = events[index].data.ptr;
      if (peer == &listener) accept_all();
      else if (peer == &datagrams) take_datagrams();
      else take_stream(peer);
    }
  }
}

void service_start(uint16_t port, bool with_datagrams, void (*handle)(const struct message *, struct peer *)) {
  handler = handle;
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("making an epoll");
  open_socket(&listener, SOCK_STREAM, port);
  if (with_datagrams) open_socket(&datagrams, SOCK_DGRAM, port);
  start_thread(keep_answering, NULL, 256 * 1024);
}

void service_run(const char *name) {
  static struct line line;
  line_add(&line, "{\"ready\":\"%s\",\"pid\":%d}", name, getpid());
  line_send(&line);
  while (!control_stop) control_wait(SECOND);
  _exit(0);
}
