// Package smbsource reads files of Windows file servers and of Samba (smb://host/share/path), by SMB 2 and 3 only.
//
// Everything that is said after the logon is signed, and encrypted where the server can. A server that signs nothing, or
// that makes the account a guest, is refused: whoever does not know the account's secret cannot take the server's place.
//
// Who reads is the login's user, by NTLMv2; a login that names nobody is whoever the process is, by its ticket of
// Kerberos, if it has one (a file that belongs to the process' user; MIT's KRB5CCNAME and /tmp/krb5cc_UID). A secret
// without a user never leaves the machine, since servers take that for the anonymous user.
//
// Sessions are shared: openings that have host, user and secret in common make one logon, also where they come at the
// same time, so that a wrong secret is one bad password for the server. A session is kept while something is open in it
// and a few seconds longer. DFS is not followed: a share that another server holds is refused, by words that say so.
//
// # What is kept of a secret
//
// It is hashed when Open is called (NTLM needs no more than the hash), the hash is overwritten when the logon is over,
// and of what the library computes from it only the session's keys outlive the logon. The pool knows sessions by a keyed
// digest whose key is random and lives in memory.
//
// # Under failure
//
// A connection that breaks, or says nothing for as long as the patience lasts, is events.SourceUnreachable for all who use
// it; nothing is read again behind the caller's back, who goes on by opening again at an offset. What a server sends is
// never trusted to be well-formed. A file that is written to, or replaced, while it is read is events.ContentChanged: its
// identity, size and times are compared with those at the opening whenever its end is read, and once a second before that,
// so whoever reads on to the end has one file's bytes or an error. One thing no client is told: that a file was written
// over, in the same size and by a process of the server itself, while yet another client of a Samba has it open. What is
// pinned is hashed for that reason too.
package smbsource
