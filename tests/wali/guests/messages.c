/* sendmsg and recvmsg: several buffers, addresses, what is written back, descriptors that go along,
 * and datagrams. */
#include "wali.h"

/* A control message of one size, and where the next begins. */
struct control {
    unsigned size, pad;
    int level, kind;
    char data[];
};
#define ALIGNED(size) (((size) + sizeof(size_t) - 1) & ~(sizeof(size_t) - 1))
enum { SOL_SOCKET = 1, SCM_RIGHTS = 1, SCM_CREDENTIALS = 2, MSG_DONTWAIT = 0x40, HEAD = 16 };
enum {
    MSG_PEEK = 2,
    MSG_TRUNC = 0x20,
    MSG_WAITALL = 0x100,
    CMSG_CLOEXEC = 0x40000000,
    SEQPACKET = 5
};

static size_t put_rights(char *to, const int *fds, int count) {
    struct control *c = (void *)to;
    c->size = HEAD + 4 * (unsigned)count, c->pad = 0, c->level = SOL_SOCKET, c->kind = SCM_RIGHTS;
    memcpy(c->data, fds, 4 * (size_t)count);
    return ALIGNED(c->size);
}

static void parts(void) {
    int pair[2];
    char a[] = "first ", b[] = "second ", in[3], rest[32] = {0};
    struct iovec out[3] = {{a, 6}, {NULL, 0}, {b, 7}}, to[2] = {{in, 3}, {rest, 31}};
    struct message m = {.parts = out, .count = 3};
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    tell("sendmsg", SYS_sendmsg(pair[0], &m, 0));
    m = (struct message){.parts = to, .count = 2, .flags = 77, .name_size = 9, .control_size = 5};
    tell("peek", SYS_recvmsg(pair[1], &m, MSG_PEEK));
    tell("recvmsg", SYS_recvmsg(pair[1], &m, 0));
    say("  %s, %s\n", (in[2] == 'r') ? "fir" : "?", rest);
    tell("  flags", m.flags);
    tell("  control", (long)m.control_size);
    tell("  name", m.name_size);
    tell("would wait", SYS_recvmsg(pair[1], &m, MSG_DONTWAIT));
    m.count = 1025;
    tell("too many parts", SYS_sendmsg(pair[0], &m, 0));
    m.count = 2, to[1].base = (void *)-2;
    tell("a part nowhere", SYS_sendmsg(pair[0], &m, 0));
    to[1].base = rest;
    tell("a message nowhere", SYS_recvmsg(pair[1], (void *)-8, 0));
    tell("no message", SYS_sendmsg(pair[0], NULL, 0));
    tell("no socket", SYS_sendmsg(0, &m, 0));
    tell("no descriptor", SYS_recvmsg(77, &m, 0));
    SYS_close(pair[1]);
    m = (struct message){.parts = out, .count = 3};
    tell("nobody listens", SYS_sendmsg(pair[0], &m, 0x4000));
    SYS_close(pair[0]);
}

/* A file is opened, sent, closed, received, read. */
static void rights(int kind) {
    int pair[2], fds[3], got[4] = {-1, -1, -1, -1};
    char text[32] = {0}, byte = 'x', control[128];
    struct iovec one = {&byte, 1};
    struct message m = {.parts = &one, .count = 1, .control = control};
    SYS_socketpair(AF_UNIX, kind, 0, pair);
    fds[0] = (int)SYS_open("sent", O_RDWR | O_CREAT, 0600);
    SYS_write(fds[0], "passed on", 9);
    SYS_lseek(fds[0], 0, 0);
    SYS_pipe(fds + 1);
    m.control_size = put_rights(control, fds, 3);
    tell("send three", SYS_sendmsg(pair[0], &m, 0));
    for (int i = 0; i < 3; i++)
        SYS_close(fds[i]);
    m.control_size = sizeof control;
    tell("receive them", SYS_recvmsg(pair[1], &m, CMSG_CLOEXEC));
    struct control *c = (void *)control;
    tell("  control", (long)m.control_size == (long)ALIGNED(HEAD + 12));
    tell("  flags", m.flags);
    tell("  size", c->size);
    tell("  level and kind", c->level * 10 + c->kind);
    memcpy(got, c->data, 12);
    tell("  lowest numbers", got[0] == fds[0] && got[1] == fds[1] && got[2] == fds[2]);
    tell("  closed on exec", SYS_fcntl(got[0], 1, 0));
    tell("  read", SYS_read(got[0], text, 32));
    say("  %s\n", text);
    tell("  written", SYS_write(got[2], "through", 7));
    tell("  read", SYS_read(got[1], text, 32));
    m.control_size = put_rights(control, got, 1);
    fds[0] = got[0];
    tell("send one", SYS_sendmsg(pair[0], &m, 0));
    m.control_size = sizeof control;
    tell("receive it", SYS_recvmsg(pair[1], &m, 0));
    memcpy(got + 3, c->data, 4);
    tell("  not closed on exec", SYS_fcntl(got[3], 1, 0));
    tell("  the same file", SYS_lseek(got[3], 0, 1));
    m.control_size = put_rights(control, got, 3);
    tell("send to little room", SYS_sendmsg(pair[0], &m, 0));
    m.control_size = HEAD + 4;
    tell("receive one of them", SYS_recvmsg(pair[1], &m, 0));
    tell("  flags", m.flags);
    tell("  size", c->size);
    tell("  control", (long)m.control_size);
    int kept;
    memcpy(&kept, c->data, 4);
    tell("  open", SYS_fcntl(kept, 1, 0));
    int next = (int)SYS_dup(0);
    tell("  no other is", next == kept + 1);
    m.control_size = put_rights(control, got, 2);
    SYS_sendmsg(pair[0], &m, 0);
    m.control = NULL, m.control_size = 0;
    tell("receive without", SYS_recvmsg(pair[1], &m, 0));
    tell("  flags", m.flags);
    got[1] = 99;
    m.control = control, m.control_size = put_rights(control, got, 2);
    tell("send what is not open", SYS_sendmsg(pair[0], &m, 0));
    c->size = 5;
    tell("a wrong size", SYS_sendmsg(pair[0], &m, 0));
    c->size = 500;
    tell("a size beyond", SYS_sendmsg(pair[0], &m, 0));
    m.control_size = 7;
    tell("no header", SYS_sendmsg(pair[0], &m, 0));
    m.control = (void *)-4, m.control_size = 24;
    tell("nowhere", SYS_sendmsg(pair[0], &m, 0));
    for (int fd = 3; fd < 20; fd++)
        SYS_close(fd);
    SYS_unlink("sent");
}

/* Two control messages in one buffer, and who has sent it. */
static void credentials(void) {
    int pair[2], on = 1, mine[3] = {(int)SYS_getpid(), (int)SYS_getuid(), (int)SYS_getgid()};
    char byte = 'y', control[128];
    struct iovec one = {&byte, 1};
    struct message m = {.parts = &one, .count = 1, .control = control};
    SYS_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    tell("SO_PASSCRED", SYS_setsockopt(pair[1], SOL_SOCKET, 16, &on, sizeof on));
    size_t first = put_rights(control, pair, 1);
    struct control *c = (void *)(control + first);
    c->size = HEAD + 12, c->pad = 0, c->level = SOL_SOCKET, c->kind = SCM_CREDENTIALS;
    memcpy(c->data, mine, 12);
    m.control_size = first + ALIGNED(HEAD + 12);
    tell("send both", SYS_sendmsg(pair[0], &m, 0));
    m.control_size = sizeof control;
    tell("receive both", SYS_recvmsg(pair[1], &m, 0));
    size_t at = 0;
    while (at + HEAD <= m.control_size) {
        c = (void *)(control + at);
        tell("  kind", c->kind);
        tell("  size", c->size);
        int who[3];
        memcpy(who, c->data, c->kind == SCM_RIGHTS ? 4 : 12);
        if (c->kind == SCM_RIGHTS)
            tell("  a number", who[0] > 2);
        else
            tell("  it is me", who[0] == mine[0] && who[1] == mine[1] && who[2] == mine[2]);
        at += ALIGNED(c->size);
    }
    unsigned size = sizeof mine;
    int peer[3] = {0};
    tell("SO_PEERCRED", SYS_getsockopt(pair[0], SOL_SOCKET, 17, peer, &size));
    tell("  it is me", peer[0] == mine[0] && peer[1] == mine[1]);
    tell("  size", size);
    for (int fd = 3; fd < 10; fd++)
        SYS_close(fd);
}

/* Between processes: the parent waits for what the child opens. */
static void inherited(void) {
    int pair[2], status;
    char byte = 'z', control[64], text[16] = {0};
    struct iovec one = {&byte, 1};
    struct message m = {.parts = &one, .count = 1, .control = control};
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    long child = SYS_fork();
    if (child == 0) {
        int fd = (int)SYS_open("childs", O_RDWR | O_CREAT, 0600);
        SYS_write(fd, "of a child", 10);
        m.control_size = put_rights(control, &fd, 1);
        leave(SYS_sendmsg(pair[1], &m, 0) != 1);
    }
    m.control_size = sizeof control;
    tell("from a child", SYS_recvmsg(pair[0], &m, 0));
    int fd;
    memcpy(&fd, ((struct control *)(void *)control)->data, 4);
    tell("  its file", SYS_pread64(fd, text, 15, 0));
    say("  %s\n", text);
    SYS_wait4((int)child, &status, 0, NULL);
    tell("  it has ended", status);
    SYS_unlink("childs");
    for (int i = 3; i < 10; i++)
        SYS_close(i);
}

static void datagrams(void) {
    struct inet_address a = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}}, b = a, from;
    unsigned size = sizeof a, from_size = sizeof from;
    char text[16] = {0};
    int one = (int)tell("UDP", SYS_socket(AF_INET, SOCK_DGRAM, 0));
    int two = (int)SYS_socket(AF_INET, SOCK_DGRAM, 17);
    tell("bind", SYS_bind(one, &a, size) + SYS_bind(two, &b, size));
    SYS_getsockname(one, &a, &size);
    SYS_getsockname(two, &b, &size);
    tell("sendto", SYS_sendto(one, "hello", 5, 0, &b, sizeof b));
    tell("recvfrom", SYS_recvfrom(two, text, 15, 0, &from, &from_size));
    tell("  from whom", from.port[0] == a.port[0] && from.port[1] == a.port[1]);
    tell("  size", from_size);
    say("  %s\n", text);
    struct iovec part = {text, 3};
    struct message m = {.name = &a, .name_size = sizeof a, .parts = &part, .count = 1};
    tell("sendmsg", SYS_sendmsg(two, &m, 0));
    struct inet_address who = {0};
    m.name = &who, m.name_size = 64, part.size = 2;
    tell("recvmsg", SYS_recvmsg(one, &m, 0));
    tell("  cut", m.flags == MSG_TRUNC);
    tell("  name", m.name_size);
    tell("  from whom", who.family == AF_INET && who.port[0] == b.port[0]);
    SYS_sendto(one, "abc", 3, 0, &b, sizeof b);
    from_size = 4;
    tell("little room for the name", SYS_recvfrom(two, text, 15, 0, &from, &from_size));
    tell("  size", from_size);
    SYS_sendto(one, "abc", 3, 0, &b, sizeof b);
    tell("no room asked", SYS_recvfrom(two, text, 15, MSG_TRUNC, NULL, NULL));
    tell("nothing there", SYS_recvfrom(two, text, 15, MSG_DONTWAIT, NULL, NULL));
    tell("to nobody", SYS_sendto(one, "abc", 3, 0, NULL, 0));
    tell("connect", SYS_connect(one, &b, sizeof b));
    tell("to the peer", SYS_sendto(one, "abc", 3, 0, NULL, 0));
    tell("how much", SYS_recvfrom(two, text, 1, MSG_TRUNC, NULL, NULL));
    SYS_sendto(one, "abc", 3, 0, NULL, 0);
    tell("all of it is one", SYS_recvfrom(two, text, 15, MSG_WAITALL, NULL, NULL));
    tell("an empty one", SYS_sendto(one, NULL, 0, 0, NULL, 0));
    tell("  comes", SYS_recvfrom(two, text, 15, 0, NULL, NULL));
    tell("a name nowhere", SYS_sendto(two, "abc", 3, 0, (void *)-4, 16));
    a.family = 0;
    tell("connect to nobody", SYS_connect(one, &a, sizeof a));
    tell("to nobody", SYS_sendto(one, "abc", 3, 0, NULL, 0));
    SYS_close(one), SYS_close(two);
}

static void packets(void) {
    int pair[2];
    char text[16];
    tell("SEQPACKET", SYS_socketpair(AF_UNIX, SEQPACKET, 0, pair));
    SYS_sendto(pair[0], "ab", 2, 0, NULL, 0);
    SYS_sendto(pair[0], "cde", 3, 0, NULL, 0);
    tell("one", SYS_recvfrom(pair[1], text, 16, 0x100, NULL, NULL));
    tell("another", SYS_recvfrom(pair[1], text, 2, 0, NULL, NULL));
    SYS_close(pair[0]);
    tell("the end", SYS_recvfrom(pair[1], text, 16, 0, NULL, NULL));
    SYS_close(pair[1]);
}

/* A datagram socket of the file system's. */
static void names(void) {
    struct {
        unsigned short family;
        char path[20];
    } here = {AF_UNIX, "place"}, from = {0};
    unsigned size = sizeof from;
    char text[8];
    int one = (int)SYS_socket(AF_UNIX, SOCK_DGRAM, 0),
        two = (int)SYS_socket(AF_UNIX, SOCK_DGRAM, 0);
    tell("bind to a path", SYS_bind(one, &here, sizeof here));
    tell("again", SYS_bind(two, &here, sizeof here));
    tell("send there", SYS_sendto(two, "abc", 3, 0, &here, sizeof here));
    tell("received", SYS_recvfrom(one, text, 8, 0, &from, &size));
    tell("  from nobody", size);
    SYS_unlink("place");
    tell("nobody there", SYS_sendto(two, "abc", 3, 0, &here, sizeof here));
    SYS_close(one), SYS_close(two);
}

int main(int argc, char **argv) {
    (void)argv;
    parts();
    rights(SOCK_STREAM);
    inherited();
    if (argc > 1) /* what follows is granted by no policy */
        return 0;
    rights(SOCK_DGRAM);
    credentials();
    datagrams();
    packets();
    names();
    return 0;
}
