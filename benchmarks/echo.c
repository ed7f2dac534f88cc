/*
 * An echo server on epoll(7) that does nothing else: the limit for the others.
 *
 *     echo echo|eight
 *
 * eight: the answer goes in pieces of 8 bytes, each a write of its own. It prints its port, and 0 for every line that
 * it is given; it ends with its standard input.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
#define PIECE 8
#define EVENTS 256

struct client {
    int fd;
    char *unsent; /* what found no room; nothing is read until it is away */
    size_t begin, end;
};

static int epoll;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void drop(struct client *client) {
    close(client->fd);
    free(client->unsent);
    free(client);
}

static void watch(struct client *client, int operation, unsigned wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = client};
    if (epoll_ctl(epoll, operation, client->fd, &event) < 0)
        die("epoll_ctl");
}

/* Send; says how much went, or -1 when the connection is gone. */
static ssize_t put(struct client *client, const char *bytes, size_t length, size_t piece) {
    size_t done = 0;
    while (done < length) {
        size_t wanted = length - done < piece ? length - done : piece;
        ssize_t sent = send(client->fd, bytes + done, wanted, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN ? (ssize_t)done : -1;
        done += sent;
    }
    return done;
}

static void answer(struct client *client, size_t piece) {
    static char chunk[CHUNK];
    ssize_t length = recv(client->fd, chunk, CHUNK, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    ssize_t sent = length > 0 ? put(client, chunk, length, piece) : -1;
    if (sent < 0) {
        drop(client);
        return;
    }
    if (sent < length) {
        client->begin = 0;
        client->end = length - sent;
        client->unsent = malloc(client->end);
        if (!client->unsent)
            die("malloc");
        memcpy(client->unsent, chunk + sent, client->end);
        watch(client, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

static void resume(struct client *client, size_t piece) {
    ssize_t sent = put(client, client->unsent + client->begin, client->end - client->begin, piece);
    if (sent < 0) {
        drop(client);
        return;
    }
    client->begin += sent;
    if (client->begin == client->end) {
        free(client->unsent);
        client->unsent = NULL;
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void admit(int listener, int hurried) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            die("calloc");
        client->fd = fd;
        if (hurried) /* or the second piece would wait for the acknowledgement of the first */
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(client, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int count, char **arguments) {
    if (count != 2)
        return 2;
    int inPieces = !strcmp(arguments[1], "eight");
    size_t piece = inPieces ? PIECE : CHUNK;
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof place;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&place, length) < 0 || listen(listener, 511) < 0)
        die("listen");
    getsockname(listener, (struct sockaddr *)&place, &length);
    epoll = epoll_create1(0);
    struct client port = {.fd = listener}, input = {.fd = 0};
    watch(&port, EPOLL_CTL_ADD, EPOLLIN);
    watch(&input, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            struct client *client = events[index].data.ptr;
            if (client == &port)
                admit(listener, inPieces);
            else if (client == &input) {
                char line[64];
                if (read(0, line, sizeof line) <= 0)
                    return 0;
                puts("0");
                fflush(stdout);
            } else if (client->unsent)
                resume(client, piece);
            else
                answer(client, piece);
        }
    }
}
