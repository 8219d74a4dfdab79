/* A program that knows nothing of skyrack and needs nothing of its image: it listens, or it seeks who does.
 *
 * seeker listen PORT        answers everyone who connects with a line, for good
 * seeker seek NAME PORT     looks at where it is, talks to NAME, says what it found, and ends with status 3
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char heard[65536];

static int dial(const char *address, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to) == 0) return s;
    close(s);
    return -1;
}

/* Send a request and hear all that comes back. */
static int ask(const char *address, int port, const char *request) {
    int s = dial(address, port);
    if (s < 0) return 0;
    if (write(s, request, strlen(request)) < 0) return 0;
    size_t n = 0;
    for (ssize_t got; n < sizeof heard - 1 && (got = read(s, heard + n, sizeof heard - 1 - n)) > 0;) n += got;
    heard[n] = 0;
    close(s);
    return n > 0;
}

/* The address of a name, as /etc/hosts has it: a static program has no resolver that could be told otherwise. */
static const char *address_of(const char *name) {
    static char address[64], other[256];
    FILE *hosts = fopen("/etc/hosts", "r");
    while (hosts && fscanf(hosts, "%63s %255s", address, other) == 2)
        if (strcmp(other, name) == 0) { fclose(hosts); return address; }
    return "0.0.0.0";
}

static void show(const char *path) {
    char line[512];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) printf("%s: %s", path, line);
    if (file) fclose(file);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "listen") == 0) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
        int door = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(door, (struct sockaddr *)&at, sizeof at) || listen(door, 8)) return 4;
        for (int s; (s = accept(door, NULL, NULL)) >= 0; close(s)) {
            char line[256] = {0}, answer[512];
            if (read(s, line, sizeof line - 1) > 0) {
                int n = snprintf(answer, sizeof answer, "%s hears %s", getenv("SKYRACK_NODE"), line);
                if (write(s, answer, n) < 0) return 5;
            }
        }
        return 6;
    }
    if (argc != 4 || strcmp(argv[1], "seek") != 0) return 2;
    show("/proc/net/dev");
    for (int turn = 0; turn < 600; turn++, usleep(100000))
        if (ask("127.0.0.1", 7071, "GET /place HTTP/1.1\r\n\r\n") && strstr(heard, "200 OK")) break;
    printf("place: %s", strstr(heard, "\r\n\r\n") ? strstr(heard, "\r\n\r\n") + 4 : "none\n");
    for (int turn = 0; turn < 600; turn++, usleep(100000))
        if (ask(address_of(argv[2]), atoi(argv[3]), "good day\n")) break;
    printf("heard: %s", heard);
    return 3;
}
