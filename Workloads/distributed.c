// Connections of the distributed application's services; see distributed.h.
#define _GNU_SOURCE
#include "distributed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int distributed_listen(unsigned port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  if (file < 0) fail("making a socket");
  setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(file, (struct sockaddr *)&address, sizeof address)) fail("binding to port %u", port);
  if (listen(file, 64)) fail("listening on port %u", port);
  return file;
}

static struct stream *new_stream(int file) {
  struct stream *stream = calloc(1, sizeof *stream);
  int on = 1;
  if (!stream) fail("a connection's memory");
  stream->file = file;
  setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return stream;
}

struct stream *distributed_connect(const char *where) {
  char text[64];
  struct sockaddr_in address = {.sin_family = AF_INET};
  const char *colon = strchr(where, ':');
  if (!colon || (size_t)(colon - where) >= sizeof text) fail("%s: want ADDRESS:PORT", where);
  memcpy(text, where, (size_t)(colon - where));
  text[colon - where] = 0;
  address.sin_port = htons((uint16_t)parse_number("port", colon + 1, 1, 65535));
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) fail("%s: want ADDRESS:PORT", where);
  for (uint64_t patience = now_ns() + 30 * SECOND;; sleep_until(now_ns() + 20 * MILLISECOND)) {
    int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0) fail("making a socket");
    if (!connect(file, (struct sockaddr *)&address, sizeof address)) return new_stream(file);
    if (now_ns() > patience) fail("connecting to %s", where);
    close(file);
  }
}

struct stream *distributed_accept(int listening) {
  int file = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return file < 0 ? NULL : new_stream(file);
}

void distributed_watch(int poller, int file, void *tag) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, file, &event)) fail("watching a descriptor");
}

bool stream_read(struct stream *stream) {
  ssize_t count =
      recv(stream->file, stream->in + stream->in_length, sizeof stream->in - stream->in_length, MSG_DONTWAIT);
  if (count > 0) stream->in_length += (size_t)count;
  return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR));
}

void stream_take(struct stream *stream, size_t length) {
  stream->in_length -= length;
  memmove(stream->in, stream->in + length, stream->in_length);
}

void stream_send(int poller, struct stream *stream, const void *bytes, size_t length) {
  if (stream->file < 0) return;
  if (stream->out_length + length > stream->out_room) {
    stream->out_room = 2 * (stream->out_length + length);
    stream->out = realloc(stream->out, stream->out_room);
    if (!stream->out) fail("a connection's memory");
  }
  memcpy(stream->out + stream->out_length, bytes, length);
  stream->out_length += length;
  stream_flush(poller, stream);  // A broken connection shows when it is read.
}

bool stream_flush(int poller, struct stream *stream) {
  ssize_t sent = send(stream->file, stream->out, stream->out_length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
  if (sent > 0) {
    stream->out_length -= (size_t)sent;
    memmove(stream->out, stream->out + sent, stream->out_length);
  }
  bool wants_room = stream->out_length > 0;
  if (wants_room == stream->wants_room) return true;
  struct epoll_event event = {.events = wants_room ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = stream};
  if (epoll_ctl(poller, EPOLL_CTL_MOD, stream->file, &event)) fail("watching a connection");
  stream->wants_room = wants_room;
  return true;
}

void stream_close(struct stream *stream) {
  close(stream->file);
  stream->file = -1;
  stream->in_length = stream->out_length = 0;
}
