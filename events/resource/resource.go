// Package resource names what lies outside of distribution points: the shares and addresses that packages and their
// programs refer to, and the patterns of them that accounts may reach.
//
// A resource has one spelling, its canonical address, which is what is signed, leased, compared and logged. It is pure:
// text in, values out; what is wrong is said without quoting anything that could be a secret.
package resource

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is the length of an address in bytes.
const Max = 1 << 10

// The schemes of addresses. There is no http: a secret does not travel in clear.
const (
	SMB   = "smb"
	HTTPS = "https"
	File  = "file"
	S3    = "s3"
	OCI   = "oci"
)

// Schemes lists them all.
func Schemes() []string { return []string{SMB, HTTPS, File, S3, OCI} }

// ports that an address need not name.
var ports = map[string]string{SMB: "445", HTTPS: "443"}

// Resource is a file or a folder. The zero value is none.
type Resource struct {
	Scheme string
	Host   string // lower-case, with a port where it is not the usual one; "" of a local file
	Path   string // not encoded: /share/folder/file. It begins with / and does not end with one
}

// Parse reads an address (smb://files.example/software/setup.exe) or a UNC path (\\files.example\software\setup.exe).
func Parse(text string) (Resource, error) {
	if len(text) > Max || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return Resource{}, fmt.Errorf("an address is one line of at most %d bytes", Max)
	}
	if rest, ok := strings.CutPrefix(text, `\\`); ok {
		return parseUNC(rest)
	}
	u, err := url.Parse(text)
	if err != nil {
		return Resource{}, errors.New("is not an address")
	}
	if u.User != nil {
		return Resource{}, errors.New("must not name a user or password: that is what the account is for")
	}
	if !slices.Contains(Schemes(), u.Scheme) {
		return Resource{}, fmt.Errorf(`%q must begin with one of %s, each followed by ://, or with \\`, u.Redacted(), strings.Join(Schemes(), ", "))
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.Opaque != "" {
		return Resource{}, fmt.Errorf("on host %s must not have a query or fragment", u.Host)
	}
	return build(u.Scheme, u.Host, u.Path)
}

func parseUNC(rest string) (Resource, error) {
	host, path, _ := strings.Cut(rest, `\`)
	if strings.Contains(path, "/") || host == "?" || host == "." {
		return Resource{}, fmt.Errorf(`\\%s must be \\host\share\path`, rest)
	}
	return build(SMB, host, "/"+strings.ReplaceAll(path, `\`, "/"))
}

func build(scheme, host, path string) (Resource, error) {
	r := Resource{Scheme: scheme, Host: strings.TrimSuffix(strings.ToLower(host), ":"+ports[scheme]), Path: strings.TrimSuffix(path, "/")}
	if scheme == File && r.Host == "localhost" {
		r.Host = ""
	}
	switch {
	case r.Host == "" && scheme != File:
		return Resource{}, fmt.Errorf("%q must name a host", scheme+"://")
	case !validHost(r.Host):
		return Resource{}, fmt.Errorf("%q is not the name of one host", host)
	case r.Path == "" || !strings.HasPrefix(r.Path, "/"):
		return Resource{}, fmt.Errorf("%q must name a share or path on the host", scheme+"://"+r.Host)
	}
	for part := range strings.SplitSeq(r.Path[1:], "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(c rune) bool { return c == '\\' || unicode.IsControl(c) }) || !utf8.ValidString(part) {
			return Resource{}, fmt.Errorf(`%q must be a plain path, without empty parts, "..", "." and \`, scheme+"://"+r.Host+r.Path)
		}
	}
	if text := r.String(); len(text) > Max {
		return Resource{}, fmt.Errorf("an address has at most %d bytes", Max)
	}
	return r, nil
}

// validHost takes names and IP addresses, with a port or without; "" is none.
func validHost(host string) bool {
	if strings.ContainsFunc(host, func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-_:[]", c) }) {
		return false
	}
	u, err := url.Parse("x://" + host)
	return err == nil && u.Host == host && !strings.HasSuffix(host, ":") && (host == "" || u.Hostname() != "")
}

// String is the canonical address, which Parse reads.
func (r Resource) String() string {
	return (&url.URL{Scheme: r.Scheme, Host: r.Host, Path: r.Path}).String()
}

// Shown is the resource as administrators of the field write it: \\host\share\path for a share.
func (r Resource) Shown() string {
	if r.Scheme == SMB || r.Scheme == File && r.Host != "" {
		return `\\` + r.Host + strings.ReplaceAll(r.Path, "/", `\`)
	}
	return r.String()
}

// Shown is how people are shown an address; what cannot be read is shown as nothing that could hold a secret.
func Shown(address string) string {
	r, err := Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return r.Shown()
}

// Share is the first part of the path, and the rest without a / before it.
func (r Resource) Share() (share, rest string) {
	share, rest, _ = strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
	return share, rest
}

// Join is what lies at a relative path below.
func (r Resource) Join(path string) Resource {
	r.Path += "/" + path
	return r
}

// folds says whether letter case does not matter on the host.
func (r Resource) folds() bool { return r.Scheme == SMB || r.Scheme == File && r.Host != "" }

// Within says whether r is base or lies below it.
func (r Resource) Within(base Resource) bool {
	if r.Scheme != base.Scheme || r.Host != base.Host || len(r.Path) < len(base.Path) {
		return false
	}
	head, tail := r.Path[:len(base.Path)], r.Path[len(base.Path):]
	return (tail == "" || tail[0] == '/') && (head == base.Path || r.folds() && strings.EqualFold(head, base.Path))
}

// ParsePattern reads what an account may reach or an order names: an address, which stands for itself and all below; a
// /* at its end says the same.
func ParsePattern(pattern string) (Resource, error) {
	r, err := Parse(strings.TrimSuffix(pattern, "/*"))
	if err == nil && strings.Contains(r.Path, "*") {
		return Resource{}, fmt.Errorf("%q may have one * only, after the last /", r)
	}
	return r, err
}

// Covers says whether a pattern covers an address. What cannot be read covers nothing and is covered by nothing.
func Covers(pattern, address string) bool {
	base, err := ParsePattern(pattern)
	if err != nil {
		return false
	}
	r, err := Parse(address)
	return err == nil && r.Within(base)
}

// Longest is the pattern that covers an address most closely; "" if none does.
func Longest(patterns []string, address string) (longest string) {
	length := -1
	for _, p := range patterns {
		if base, err := ParsePattern(p); err == nil && Covers(p, address) && len(base.Path) > length {
			longest, length = p, len(base.Path)
		}
	}
	return longest
}
