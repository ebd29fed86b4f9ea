// A server of one thread: acceptor PORT MILLISECONDS accepts a connection, takes so long, answers with its number, closes it.
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
  if (count != 3) return 2;
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[1]))};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 1;
  printf("{\"ready\"}\n");
  fflush(stdout);
  long milliseconds = atol(arguments[2]);
  for (long number = 1;; number++) {
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) return 1;
    struct timespec rest = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&rest, NULL);
    char text[32];
    int length = snprintf(text, sizeof text, "%ld\n", number);
    if (write(connection, text, (size_t)length) != length) return 1;
    // The client closes first, so that nothing of this connection stays here.
    while (read(connection, text, sizeof text) > 0) {}
    close(connection);
  }
}
