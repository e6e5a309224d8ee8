/* A process that is alone in namespaces of its own, as nobody, where an empty tmpfs is all there
 * is: whatever is called, it harms nobody. */
#include "fuzz.h"

int unshare(int);
int chdir(const char *);
int access(const char *, int);
int snprintf(char *, size_t, const char *, ...);
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
long syscall(long, ...);
unsigned geteuid(void);
unsigned getegid(void);
int setgroups(size_t, const unsigned *);
int setresuid(unsigned, unsigned, unsigned);
int setresgid(unsigned, unsigned, unsigned);

#if defined(__x86_64__)
enum { NR_PIVOT_ROOT = 155 };
#else
enum { NR_PIVOT_ROOT = 41 };
#endif
enum { NEW_NAMESPACES = 0x20000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000 };
enum { NOBODY = 65534, PR_SET_DUMPABLE = 4, DETACH = 2 };
enum { MOUNT_PRIVATE = 0x44000, MOUNT_PLAIN = 6 }; /* recursively; no set-uid files, no devices */

static int put(const char *path, const char *text, int length) {
    int fd = open(path, 1);
    int done = fd >= 0 && write(fd, text, (size_t)length) == length;
    close(fd);
    return done;
}

/* Nothing of the host's is in reach: not its users (root becomes nobody first), its processes, its
 * network, nor any file of its: the only mount that there is is a small tmpfs.  chroot would not
 * do: whoever may call it gets out again. */
int is_alone(void) {
    char map[64];
    int root = geteuid() == 0;
    if (root && (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
                 setresuid(NOBODY, NOBODY, NOBODY) || prctl(PR_SET_DUMPABLE, 1)))
        return 0;
    unsigned user = geteuid(), group = getegid();
    if (user == 0 || unshare(NEW_NAMESPACES))
        return 0;
    int length = snprintf(map, sizeof map, "0 %u 1", user);
    if (!put("/proc/self/setgroups", "deny", 4) || !put("/proc/self/uid_map", map, length))
        return 0;
    length = snprintf(map, sizeof map, "0 %u 1", group);
    if (!put("/proc/self/gid_map", map, length) || mount("none", "/", NULL, MOUNT_PRIVATE, NULL) ||
        mount("none", "/tmp", "tmpfs", MOUNT_PLAIN, "size=8m,mode=777") || chdir("/tmp") ||
        syscall(NR_PIVOT_ROOT, ".", ".") || umount2(".", DETACH) || chdir("/"))
        return 0;
    return access("/proc", 0) && access("/etc", 0) && access("..", 0) == 0 && access("/tmp", 0);
}
