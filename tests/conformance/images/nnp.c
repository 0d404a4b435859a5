// The set-uid program of the nonewprivs image: says which user it runs as, which allowPrivilegeEscalation decides.
#include <stdio.h>
#include <unistd.h>

int main(void) { return printf("Effective uid: %d\n", (int)geteuid()) < 0; }
