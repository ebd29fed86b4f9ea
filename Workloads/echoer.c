// Answers datagrams: every one that it gets goes back to its sender. It rests between, so that datagrams wait unread.
//
//   echoer PORT REST    PORT: any sender; PORT + 1: the same by an IPv6 socket; PORT + 2: the first one's sender only.
//                       REST: milliseconds between two looks at the sockets.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int open_socket(int family, int port) {
  int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  const void *address = family == AF_INET ? (void *)&any4 : (void *)&any6;
  if (fd < 0 || bind(fd, address, family == AF_INET ? sizeof any4 : sizeof any6)) {
    perror("echoer: binding");
    exit(1);
  }
  return fd;
}

static void answer_all(int fd, int *connected) {
  static char bytes[65536];
  for (;;) {
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    ssize_t size = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
    if (size < 0) return;
    if (connected && !*connected) *connected = connect(fd, (struct sockaddr *)&from, length) == 0;
    ssize_t sent = connected ? send(fd, bytes, size, 0) : sendto(fd, bytes, size, 0, (struct sockaddr *)&from, length);
    if (sent != size) perror("echoer: answering");
  }
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: echoer PORT REST\n");
    return 2;
  }
  int port = atoi(arguments[1]), rest = atoi(arguments[2]) * 1000, connected = 0;
  int any = open_socket(AF_INET, port), any6 = open_socket(AF_INET6, port + 1), one = open_socket(AF_INET, port + 2);
  dprintf(STDOUT_FILENO, "{\"ready\":\"echoer\"}\n");
  for (;;) {
    usleep(rest);
    answer_all(any, NULL);
    answer_all(any6, NULL);
    answer_all(one, &connected);
  }
}
