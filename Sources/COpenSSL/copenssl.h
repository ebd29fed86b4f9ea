// The little of libcrypto that Apus uses: message digests.
#include <openssl/evp.h>
