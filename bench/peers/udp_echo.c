/*
 * UDP echo on kernel sockets: the baselines of `arrakis bench echo`.
 *
 *   udp_echo ADDRESS PORT        kernel/c: recvfrom, sendto, asleep when there is nothing
 *   udp_echo ADDRESS PORT poll   kernel/c-tuned: the same as fast as we could make it. recvmmsg and sendmmsg; and it polls the
 *                                interface itself when there is nothing (SO_PREFER_BUSY_POLL). Needs CAP_NET_ADMIN
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

enum { BATCH = 64, DATAGRAM_MAX = 2048, BUSY_POLL_US = 20 };

static int set(int fd, int option, int value, const char *name) {
  if (setsockopt(fd, SOL_SOCKET, option, &value, sizeof value) == 0) return 0;
  perror(name);
  return -1;
}

static void echo_one_by_one(int fd) {
  static char buffer[65536];
  for (;;) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t n = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length);
    if (n < 0) continue;
    sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, length);
  }
}

static void echo_batches(int fd) {
  static char buffers[BATCH][DATAGRAM_MAX];
  static struct sockaddr_in from[BATCH];
  static struct iovec parts[BATCH];
  static struct mmsghdr messages[BATCH];
  int used = BATCH;
  for (;;) {
    /* Only what the last batch used has to be made ready again: at one in flight that is one. */
    for (int i = 0; i < used; i++) {
      parts[i] = (struct iovec){.iov_base = buffers[i], .iov_len = DATAGRAM_MAX};
      messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    used = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
    if (used < 0) used = 0;
    for (int i = 0; i < used; i++) parts[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < used;) {
      int n = sendmmsg(fd, messages + sent, (unsigned)(used - sent), 0);
      if (n <= 0) break;
      sent += n;
    }
  }
}

int main(int argc, char **argv) {
  struct sockaddr_in address;
  int polls = argc == 4 && strcmp(argv[3], "poll") == 0;
  if (argc != 3 && !polls) {
    fprintf(stderr, "usage: udp_echo ADDRESS PORT [poll]\n");
    return 2;
  }
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  int bytes = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((unsigned short)atoi(argv[2]));
  if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) return 2;
  if (polls) {
    if (set(fd, SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL") < 0) return 1;
    if (set(fd, SO_BUSY_POLL, BUSY_POLL_US, "SO_BUSY_POLL") < 0) return 1;
    if (set(fd, SO_BUSY_POLL_BUDGET, BATCH, "SO_BUSY_POLL_BUDGET") < 0) return 1;
  }
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    perror("bind");
    return 1;
  }
  if (polls) echo_batches(fd);
  else echo_one_by_one(fd);
}
