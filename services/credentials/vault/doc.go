// Package vault seals the secrets of accounts for where they are kept, and keeps the keys that they are sealed by.
//
// Three things are needed to read a secret, and they are kept in different places: the sealed secret (the broker's
// bucket), the keyset that it was sealed by (one file, accounts.vault.json, mode 0600), and the key-encryption key
// that the keyset is wrapped by, which is never in that file. What is sealed is bound to its account and version, and
// the wrapped keyset to what it is for: neither opens as anything else.
//
// # Key-encryption keys
//
// [Parse] reads which one is meant:
//
//   - file:PATH is 32 random bytes that only their owner may read. The file is made at the very first start, and when
//     a keyset moves to it; never otherwise, so that a disk which is not mounted cannot bring forth another key.
//   - transit:URL is a key in the transit engine of OpenBao or Vault, of a kind that authenticates associated data
//     (aes256-gcm96, chacha20-poly1305): transit:https://bao.example:8200/MOUNT/KEY?token-file=PATH, where needed with
//     &namespace=NAME and &ca=PATH. The token's policy allows update on MOUNT/encrypt/KEY and MOUNT/decrypt/KEY and no
//     more. The token file is read anew each time; whoever writes it renews the token. The two calls that are used
//     are tested against an imitation that runs in the tests' process, not against a real OpenBao.
//   - command:PATH is a program that is called with the argument wrap or unwrap. It gets bytes on standard input and
//     answers with bytes on standard output, within 30 s. The program, all directories above, and links on
//     the way must belong to root or the service's own user, and others must not be able to write to them.
//
// Files of keys and tokens must belong to root or the service's own user too: one that somebody else put there first
// is not used.
//
// # Under failure
//
// The keyset file is replaced as a whole or not at all, and only after what was wrapped was unwrapped again. A keyset
// file that is there and cannot be opened is an error, never a reason to make another. One that an earlier version
// left in the clear is wrapped at the start, and then overwritten and removed: what the disk kept of it elsewhere, in
// copies of blocks, snapshots or backups, stays readable, so set the secrets again where that matters.
//
// Several replicas may use one keyset file at the same time: changes are made under a lock, what was changed is
// read before the next secret is sealed, and when a secret's key is not known. A key-encryption key that is away stops
// the start, and the reading of a changed keyset; what is open stays open.
//
// Rekeying is three steps, each of which leaves everything readable: [Vault.AddKey], sealing every secret again, and
// [Vault.Retire]. Copies of the bucket from before need the copy of the keyset file that was made with them.
package vault
