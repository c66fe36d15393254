// fence_open sets a fence up around a directory and returns its number, or -1. reserve
// is a file whose content is given up when there is no room, or -1.
int fence_open(const char *dir, int reserve);
void fence_close(int fence);
// fence_error is the errno with which the disk refused a write, or zero.
int fence_error(int fence);
// fence_hold says whether writes that are refused wait, or are told so.
void fence_hold(int fence, int holding);
