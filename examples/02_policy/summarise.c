/* Counts the files, lines and words below some directories, by kind of file, and finds the words
 * that occur most often:  summarise REPORT DIRECTORY...  ($TOP says how many words).
 *
 * Nothing here knows of WASI or of policies: it is the C that runs on any Unix.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { KINDS = 64, SLOTS = 1 << 16, PATH_SIZE = 1024, WORD_SIZE = 32, SHORTEST = 5 };

struct kind {
    char name[16];
    unsigned files, lines, words;
};

struct word {
    char text[WORD_SIZE];
    unsigned count;
};

static struct kind kinds[KINDS];
static struct word words[SLOTS];
static int failures;

static void complain(const char *path) {
    fprintf(stderr, "%s: %s (errno %d)\n", path, strerror(errno), errno);
    failures++;
}

static struct kind *kind_of(const char *name) {
    const char *dot = strrchr(name, '.');
    dot = dot && dot != name && strlen(dot) < sizeof kinds->name ? dot : "other";
    for (int i = 0; i < KINDS - 1; i++)
        if (!kinds[i].name[0] || !strcmp(kinds[i].name, dot))
            return strcpy(kinds[i].name, dot), &kinds[i];
    return &kinds[KINDS - 1];
}

static void count_word(const char *text) {
    unsigned hash = 2166136261u;
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct word *word = &words[(hash + i) % SLOTS];
        if (!word->count)
            strcpy(word->text, text);
        if (!strcmp(word->text, text)) {
            word->count++;
            return;
        }
    }
}

static void read_file(const char *path, struct kind *kind) {
    char text[WORD_SIZE];
    unsigned length = 0;
    FILE *file = fopen(path, "r");
    if (!file) {
        complain(path);
        return;
    }
    kind->files++;
    for (int c = 0; c != EOF;) {
        c = getc(file);
        kind->lines += c == '\n';
        if (isalnum(c) || c == '_') {
            if (length < sizeof text - 1)
                text[length++] = (char)tolower(c);
            continue;
        }
        text[length] = 0;
        kind->words += length > 0;
        if (length >= SHORTEST)
            count_word(text);
        length = 0;
    }
    fclose(file);
}

static void walk(const char *path) {
    char below[PATH_SIZE];
    struct stat status;
    DIR *directory = opendir(path);
    if (!directory) {
        complain(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (stat(below, &status))
            complain(below);
        else if (S_ISDIR(status.st_mode))
            walk(below);
        else if (S_ISREG(status.st_mode))
            read_file(below, kind_of(entry->d_name));
    }
    closedir(directory);
}

static int by_count(const void *left, const void *right) {
    const struct word *a = left, *b = right;
    return a->count != b->count ? (a->count < b->count ? 1 : -1) : strcmp(a->text, b->text);
}

static void write_report(FILE *out) {
    const char *top = getenv("TOP");
    fprintf(out, "%-8s %6s %8s %8s\n", "kind", "files", "lines", "words");
    for (struct kind *kind = kinds; kind->name[0]; kind++)
        fprintf(out, "%-8s %6u %8u %8u\n", kind->name, kind->files, kind->lines, kind->words);
    qsort(words, SLOTS, sizeof *words, by_count);
    for (int i = 0, n = top ? atoi(top) : 0; i < n && words[i].count; i++)
        fprintf(out, "%s%s %u", i ? ", " : "most often: ", words[i].text, words[i].count);
    fputc('\n', out);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return fprintf(stderr, "usage: summarise REPORT DIRECTORY...\n"), 2;
    for (int i = 2; i < argc; i++)
        walk(argv[i]);
    FILE *report = fopen(argv[1], "w");
    if (!report) {
        complain(argv[1]);
        return 1;
    }
    write_report(report);
    return fclose(report) || failures;
}
