package events

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
)

var (
	idEncoding  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9._+-]{0,63}$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+:~-]{0,63}$`)
	keyForm     = regexp.MustCompile(`^U[A-Z2-7]{55}$`)
)

// DeriveID hashes what an event (or job) states into 26 characters of [a-z2-7]: 130 bits of SHA-256 over
// the parts, each preceded by its length so that no two lists of parts collide.
func DeriveID(kind string, parts ...string) string {
	var room [512]byte
	text := appendPart(appendPart(room[:0], "chandler"), kind)
	for _, p := range parts {
		text = appendPart(text, p)
	}
	sum := sha256.Sum256(text)
	var id [56]byte
	idEncoding.Encode(id[:], sum[:])
	return string(id[:26])
}

func appendPart(text []byte, part string) []byte {
	return append(append(strconv.AppendInt(text, int64(len(part)), 10), ':'), part...)
}

// JobID names one occurrence of one order on one agent; user is empty unless the program runs once for
// every user. occurrence is the nominal start in Unix seconds, 0 for "as soon as possible".
func JobID(deployment string, revision uint64, agent string, occurrence int64, user string) string {
	return DeriveID("job", deployment, strconv.FormatUint(revision, 10), agent, strconv.FormatInt(occurrence, 10), user)
}

// AgentID derives an agent's id from its public key: 20 characters of [a-z2-7], the first never a digit.
func AgentID(publicKey []byte) string {
	return "a" + DeriveID("agent", string(publicKey))[:19]
}

// consistsOf says whether s has from least to most bytes, all of them allowed. Tokens, agents and digests are checked
// for every event that comes in, some of them more than once.
func consistsOf(s string, least, most int, allowed func(byte) bool) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func isIDByte(c byte) bool    { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
func isTokenByte(c byte) bool { return isIDByte(c) || c == '_' || c == '-' }
func isHexByte(c byte) bool   { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// ValidToken says whether s may stand as one token of a subject: lower-case letters, digits, - and _,
// at most 64 characters. Everything that reaches a subject passes through it.
func ValidToken(s string) error {
	if !consistsOf(s, 1, 64, isTokenByte) || s[0] == '_' || s[0] == '-' {
		return fmt.Errorf("name %q must be 1 to 64 characters of a-z, 0-9, - and _, beginning with a letter or digit", s)
	}
	return nil
}

// ValidAgent checks the form of an agent id.
func ValidAgent(s string) error {
	if !consistsOf(s, 8, 32, isIDByte) {
		return fmt.Errorf("agent id %q must be 8 to 32 characters of a-z and 0-9", s)
	}
	return nil
}

// ValidKey checks the form of a public user nkey, as it stands in subjects; [NoKey] passes too.
func ValidKey(s string) error {
	if s != NoKey && !keyForm.MatchString(s) {
		return fmt.Errorf("key %q is not a public user key (U and 55 characters of A-Z and 2-7)", s)
	}
	return nil
}

// ValidPackage checks a package's name: as a token, and dots and + allowed.
func ValidPackage(s string) error {
	if !nameForm.MatchString(s) {
		return fmt.Errorf("package name %q must be 1 to 64 characters of a-z, 0-9, and . _ + -, beginning with a letter or digit", s)
	}
	return nil
}

// ValidVersion checks a package's version.
func ValidVersion(s string) error {
	if !versionForm.MatchString(s) {
		return fmt.Errorf("version %q must be 1 to 64 characters of letters, digits, and . _ + : ~ -", s)
	}
	return nil
}

// ValidDigest checks a SHA-256 digest: 64 lower-case hexadecimal digits.
func ValidDigest(s string) error {
	if !consistsOf(s, 64, 64, isHexByte) {
		return fmt.Errorf("digest %q must be 64 lower-case hexadecimal digits", s)
	}
	return nil
}

// Token turns a valid package name into a subject token (dots and + become _). Filters on it may match
// more than one package; readers compare the name in the data.
func Token(name string) string {
	return strings.NewReplacer(".", "_", "+", "_").Replace(name)
}

// Partition is the partition of an agent among n, as the broker's partition() transform computes it.
func Partition(agent string, n int) int {
	h := fnv.New32a()
	h.Write([]byte(agent))
	return int(h.Sum32() % uint32(n))
}

// AgentSource and ServiceSource are the only two forms of an event's source.
func AgentSource(agent string) string  { return "/agents/" + agent }
func ServiceSource(name string) string { return "/services/" + name }

// SourceAgent is the agent that a source names, or "" where it names none.
func SourceAgent(source string) string {
	agent, ok := strings.CutPrefix(source, "/agents/")
	if !ok || ValidAgent(agent) != nil {
		return ""
	}
	return agent
}
