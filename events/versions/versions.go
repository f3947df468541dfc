// Package versions orders the versions of packages and decides whether one meets a condition such as "< 3.0".
//
// The order is Debian's, which is right for dotted numbers as well: numbers count as numbers, however long they are;
// letters come before other signs; "~" comes before everything, even the end, so that 3.0~rc1 is older than 3.0; an
// epoch stands before ":", a revision behind the last "-". One thing differs: zeros at the end of the dotted numbers say
// nothing, so that 3.0 and 3.0.0 are one version, as they are to Windows Installer.
//
// It is pure, and takes any text without failing: what is no version at all has a place in the order too.
package versions

import (
	"cmp"
	"fmt"
	"strings"

	"chandler/events"
)

// Satisfies says whether a version meets a condition: a version that it must equal ("2.9"), or one of =, >=, >, <= and <
// before a version ("< 3.0"). Every version meets the empty condition. An error says which of the two is malformed.
func Satisfies(version, constraint string) (bool, error) {
	if err := events.ValidVersion(version); err != nil {
		return false, err
	}
	operator, wanted, err := parse(constraint)
	if err != nil {
		return false, err
	}
	order := Compare(version, wanted)
	switch operator {
	case "":
		return true, nil
	case "=":
		return order == 0, nil
	case ">=":
		return order >= 0, nil
	case ">":
		return order > 0, nil
	case "<=":
		return order <= 0, nil
	}
	return order < 0, nil
}

// Valid checks the form of a condition of [Satisfies].
func Valid(constraint string) error {
	_, _, err := parse(constraint)
	return err
}

// parse gives an operator, which is empty for a condition that says nothing, and a version.
func parse(constraint string) (operator, version string, err error) {
	if constraint == "" {
		return "", "", nil
	}
	operator, version = "=", strings.TrimSpace(constraint)
	for _, o := range []string{">=", "<=", "=", ">", "<"} { // the longer ones first
		if rest, ok := strings.CutPrefix(version, o); ok {
			operator, version = o, strings.TrimSpace(rest)
			break
		}
	}
	if events.ValidVersion(version) != nil {
		return "", "", fmt.Errorf(`version condition %.80q: write it as "2.9", or with one of =, >=, >, <=, < in front, as "< 3.0"`, constraint)
	}
	return operator, version, nil
}

// Compare orders two versions as cmp.Compare does.
func Compare(a, b string) int {
	epochA, upstreamA, revisionA := split(a)
	epochB, upstreamB, revisionB := split(b)
	return cmp.Or(compareNumbers(epochA, epochB), compareText(upstreamA, upstreamB), compareText(revisionA, revisionB))
}

// split takes a version apart: [epoch:]upstream[-revision].
func split(version string) (epoch, upstream, revision string) {
	upstream = version
	if before, after, ok := strings.Cut(version, ":"); ok && before != "" && digits(before) == len(before) {
		epoch, upstream = before, after
	}
	if i := strings.LastIndexByte(upstream, '-'); i >= 0 {
		upstream, revision = upstream[:i], upstream[i+1:]
	}
	return epoch, withoutZeros(upstream), revision
}

// withoutZeros drops the zeros at the end of the dotted numbers that an upstream version begins with, where those are all
// of it or end at a sign that leaves the order to others as it is.
func withoutZeros(upstream string) string {
	end := 0
	for end < len(upstream) && (upstream[end] == '.' || isDigit(upstream[end])) {
		end++
	}
	numbers, rest := upstream[:end], upstream[end:]
	if rest != "" && !strings.ContainsRune("-+~", rune(rest[0])) {
		return upstream
	}
	for {
		dot := strings.LastIndexByte(numbers, '.')
		if dot <= 0 || dot == len(numbers)-1 || strings.Trim(numbers[dot+1:], "0") != "" {
			return numbers + rest
		}
		numbers = numbers[:dot]
	}
}

// compareText compares signs and numbers in turns.
func compareText(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if order := cmp.Compare(rank(a), rank(b)); order != 0 {
				return order
			}
			a, b = a[1:], b[1:] // alike, so that neither is at its end
		}
		m, n := digits(a), digits(b)
		if order := compareNumbers(a[:m], b[:n]); order != 0 {
			return order
		}
		a, b = a[m:], b[n:]
	}
	return 0
}

// rank of the first sign: "~", the end or a number, letters, the rest.
func rank(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case 'a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// compareNumbers compares digits by their value; none are zero.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func digits(s string) (n int) {
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
