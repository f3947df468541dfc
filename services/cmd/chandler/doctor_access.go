package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"

	"chandler/events"
)

// soonEnds is how long before its end an identity or a certificate is warned about.
const soonEnds = 30 * 24 * time.Hour

// examineFiles looks at what this context names: whether only its owner reads it, where the operator's keys
// are, and when the credentials end.
func (a *app) examineFiles(where connection) []finding {
	var found []finding
	for _, secret := range []string{where.Credentials, where.Administrator, where.TrustDir, where.SigningKey} {
		if secret != "" && !strings.HasPrefix(secret, "ssh-agent:") {
			found = append(found, examineModes(secret)...)
		}
	}
	if store, err := a.contexts(); err == nil {
		found = append(found, examineModes(filepath.Join(store.dir, "context"))...)
	}
	if where.Administrator != "" && !present(where.Administrator) {
		found = append(found, warning("administrator", "bring it back, or say where it is: chandler context add "+where.Name+" --administrator DIR",
			"%s is not there: nobody can be made or revoked from here", where.Administrator))
	}
	if where.Credentials != "" {
		found = append(found, a.judgeCredentials(where.Credentials)...)
	}
	if where.CA != "" {
		if cert, err := readCertificate(where.CA); err != nil {
			found = append(found, problem("certificate authority", "put it back, or name another: chandler context add "+where.Name+" --ca FILE", "%v", err))
		} else {
			found = append(found, a.judgeCertificate("certificate authority", "a new one has to be told to every agent", cert)...)
		}
	}
	if len(found) == 0 {
		found = append(found, ok("files", "what context %s names is readable by its owner alone", where.Name))
	}
	return found
}

// examineModes names the files of a directory, or the file, that others may read. What is not there is for
// others to tell.
func examineModes(path string) (found []finding) {
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		private := name == path || info.Mode().IsRegular() && entry.Name() != caName // that one is for everybody
		if private && othersMayRead(info) {
			advice := "chmod 600 " + name
			if info.IsDir() {
				advice = "chmod 700 " + name
			}
			found = append(found, problem("file", advice, "%s can be read by others (mode %04o)", name, info.Mode().Perm()))
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		found = append(found, warning("file", "look at it as the user who owns it", "%v", err))
	}
	return found
}

// examineServer looks at the data directory of a server on this machine.
func (a *app) examineServer(ctx context.Context, where connection) []finding {
	if !present(where.Data) {
		return nil
	}
	at := place{where.Data}
	found := append(examineListeners(at), examineHealth(ctx, at)...)
	for _, secret := range []string{at.identity(), at.tls(), at.keys()} {
		found = append(found, examineModes(secret)...)
	}
	found = append(found, examineKeyEncryption(at)...)
	if info, err := os.Stat(at.data); err == nil && othersMayRead(info) {
		found = append(found, problem("file", "chmod 700 "+at.data, "%s can be read by others (mode %04o)", at.data, info.Mode().Perm()))
	}
	for _, beside := range []string{at.administrator(), where.Administrator} {
		if inside, err := filepath.Rel(at.data, beside); beside != "" && err == nil && filepath.IsLocal(inside) && present(beside) {
			found = append(found, warning("administrator", "move it to where you administer from, then: chandler context add "+where.Name+" --administrator NEW-PLACE",
				"the keys that make users, %s, are beside the broker: whoever takes over this machine makes administrators", beside))
			break
		}
	}
	made := identities{dir: at.identity()}
	if !present(made.dir) { // services whose identities are elsewhere
		return found
	}
	for _, name := range services() {
		found = append(found, a.judgeCredentials(made.service(name))...)
	}
	return append(found, a.judgeCredentials(made.provisioner())...)
}

// aliveTime bounds the wait for a listener on this machine.
const aliveTime = time.Second

// examineListeners names those that others on the network can listen in on.
func examineListeners(at place) []finding {
	all, err := readListeners(at)
	if err != nil {
		return []finding{warning("listeners", "restart the server", "%v", err)}
	}
	var found []finding
	for _, l := range all {
		if l.TLS || loopback(l.Address) || !alive(l.Address) {
			continue
		}
		found = append(found, warning("listener "+l.What, "start with --tls, or let it listen on loopback", "takes connections on %s without encryption", l.Address))
	}
	if len(found) == 0 && len(all) > 0 {
		found = append(found, ok("listeners", "none takes clear text from other machines"))
	}
	return found
}

// alive says whether something listens: the note of a process that was killed stays.
func alive(address string) bool {
	if unspecified(address) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return false
		}
		address = net.JoinHostPort("localhost", port)
	}
	conn, err := net.DialTimeout("tcp", address, aliveTime)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// maxInfo bounds the line with which a broker begins.
const maxInfo = 64 << 10

// brokerListens asks a broker where it listens: who connects to it on loopback cannot tell from that whether
// others reach it too.
func brokerListens(connected string) (address string, err error) {
	conn, err := net.DialTimeout("tcp", connected, aliveTime)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(aliveTime)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxInfo)).ReadString('\n')
	if err != nil {
		return "", err
	}
	return parseInfo(line)
}

// parseInfo reads the address in that line.
func parseInfo(line string) (address string, err error) {
	text, ok := strings.CutPrefix(line, "INFO ")
	if !ok {
		return "", errors.New("it is no NATS broker")
	}
	var info struct {
		Host string `json:"host"`
		Port uint16 `json:"port"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return "", err
	}
	return net.JoinHostPort(info.Host, strconv.Itoa(int(info.Port))), nil
}

// judgeCredentials warns before a user's credentials end.
func (a *app) judgeCredentials(file string) []finding {
	user, err := readUser(file)
	if errors.Is(err, fs.ErrNotExist) {
		return []finding{problem("credentials", "put them back from a copy", "%v", err)}
	}
	if err != nil {
		return []finding{problem("credentials", "nobody connects with them until this is mended", "%v", err)}
	}
	clear(user.seed)
	claims, err := jwt.DecodeUserClaims(user.jwt)
	if err != nil || claims.Expires == 0 {
		return nil
	}
	return a.judgeEnd("credentials", "an administrator makes new ones with `chandler user add`", "those of "+user.name+" in "+file, time.Unix(claims.Expires, 0))
}

func (a *app) judgeCertificate(about, advice string, cert *x509.Certificate) []finding {
	return a.judgeEnd(about, advice, "that of "+cellOr(cert.Subject.CommonName, "no name"), cert.NotAfter)
}

// judgeEnd warns where something ends soon.
func (a *app) judgeEnd(about, advice, what string, end time.Time) []finding {
	switch left := end.Sub(a.now()); {
	case left <= 0:
		return []finding{problem(about, advice, "%s ended at %s", what, a.longTime(end))}
	case left < soonEnds:
		return []finding{warning(about, advice, "%s ends at %s", what, a.longTime(end))}
	}
	return nil
}

// examineUsers warns before users are shut out, and names those who are.
func (a *app) examineUsers(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.UserList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	var found []finding
	var ended []string
	live := 0
	for _, u := range all.Users {
		switch {
		case u.Revoked:
		case !u.Expires.IsZero() && !u.Expires.After(a.now()):
			ended = append(ended, u.User+" ("+u.Role+")")
		default:
			if live++; !u.Expires.IsZero() {
				found = append(found, a.judgeEnd("user", "`chandler user add` makes new credentials", u.User+" ("+u.Role+")", u.Expires)...)
			}
		}
	}
	if len(found) == 0 {
		found = append(found, ok("users", "%s, none whose credentials end soon", plural(live, "user", "users")))
	}
	if len(ended) > 0 {
		found = append(found, ok("users", "the credentials of %s have ended: %s", plural(len(ended), "user", "users"), firstOf(ended, 5)))
	}
	return found, nil
}

// examineTokens names those that let no machine in any more because their time is over.
func (a *app) examineTokens(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.TokenList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	var ended []string
	for _, t := range all.Tokens {
		if !t.Expires.After(a.now()) {
			ended = append(ended, t.Name)
		}
	}
	found := []finding{ok("tokens", "machines may enrol with %s", plural(len(all.Tokens)-len(ended), "token", "tokens"))}
	if len(ended) > 0 {
		found = append(found, ok("tokens", "%s ended: %s", plural(len(ended), "token has", "tokens have"), firstOf(ended, 5)))
	}
	return found, nil
}

// examinePending counts the machines that wait for somebody.
func examinePending(ctx context.Context, c *client) ([]finding, error) {
	waiting, err := enrolments(ctx, c, events.EnrolmentPending)
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	says := plural(len(waiting), "machine waits", "machines wait") + " for approval"
	if !c.administers() {
		return []finding{ok("approvals", "%s by an administrator", says)}, nil
	}
	return []finding{warning("approvals", "chandler agent ls --pending", "%s", says)}, nil
}
