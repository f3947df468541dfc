// Package enrolment is how a machine becomes an agent of the fleet, and comes back after its identity has
// expired: the token that an administrator hands out, and the statement by which the agent proves that it
// has the token and a key of its own.
//
// A token is one string. It says where the broker is, which CA and which root keys to believe, and carries a
// secret: the seed of a key pair. The secret never travels: the agent signs with it. The agent's own seed
// never travels either. What is sent is public, and a copy of it is worth nothing, because the answer is an
// identity for the very key that signed.
//
// Everything here is pure: bytes in, values out. What was sent by somebody is checked whole or refused; no
// error quotes a secret.
package enrolment
