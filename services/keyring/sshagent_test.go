//go:build unix

package keyring

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// serveAgent serves an SSH agent on a socket until the test ends and lets this process use it.
func serveAgent(t *testing.T, ring agent.Agent) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ring") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(ring, conn) // ends with the connection
			}()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)
}

func addKey(t *testing.T, ring agent.Agent, private any, comment string) {
	t.Helper()
	if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: comment}); err != nil {
		t.Fatal(err)
	}
}

func fingerprint(t *testing.T, private ed25519.PrivateKey) string {
	t.Helper()
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(public)
}

func TestAnSSHAgentSigns(t *testing.T) {
	ring := agent.NewKeyring()
	key, private := newKey(t)
	_, twin := newKey(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	addKey(t, ring, private, "ada@ws-1")
	addKey(t, ring, twin, "twin")
	addKey(t, ring, other, "curve")
	serveAgent(t, ring)
	for _, name := range []string{"ada@ws-1", fingerprint(t, private)} {
		s, err := Open(AgentPrefix+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkSigner(t, s, key.Public())
	}
	_, second := newKey(t)
	addKey(t, ring, second, "twin")
	for name, want := range map[string]string{
		"bob":   "ada@ws-1",                // lists those there are
		"":      fingerprint(t, private),   // never guesses
		"curve": "no Ed25519 key",          // is not one
		"twin":  "2 keys with the comment", // two bear it
	} {
		if _, err := Open(AgentPrefix+name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
}

// liar signs something else, or in another form, than it was asked.
type liar struct {
	agent.Agent
	change func(*ssh.Signature)
}

func (l liar) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	s, err := l.Agent.Sign(key, data)
	if err == nil {
		l.change(s)
	}
	return s, err
}

func TestASignatureThatDoesNotFitIsNotPassedOn(t *testing.T) {
	_, private := newKey(t)
	for name, change := range map[string]func(*ssh.Signature){
		"altered":      func(s *ssh.Signature) { s.Blob[0] ^= 1 },
		"cut off":      func(s *ssh.Signature) { s.Blob = s.Blob[:63] },
		"another form": func(s *ssh.Signature) { s.Format = ssh.KeyAlgoSKED25519 },
	} {
		t.Run(name, func(t *testing.T) {
			ring := agent.NewKeyring()
			addKey(t, ring, private, "ada")
			serveAgent(t, liar{ring, change})
			s, err := Open(AgentPrefix+"ada", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Sign([]byte("what is signed")); err == nil || !strings.Contains(err.Error(), "not the key's signature") {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestAnSSHAgentThatIsNotThereIsToldInWords(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := Open(AgentPrefix+"ada", nil); err == nil || !strings.Contains(err.Error(), "ssh-add") {
		t.Errorf("got %v", err)
	}
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "none"))
	if _, err := Open(AgentPrefix+"ada", nil); err == nil {
		t.Error("a socket that is not there was reached")
	}
	serveAgent(t, agent.NewKeyring())
	if _, err := Open(AgentPrefix+"ada", nil); err == nil || !strings.Contains(err.Error(), "ssh-keygen") {
		t.Errorf("an agent without keys: %v", err)
	}
}

// TestTheRealSSHAgentSigns runs OpenSSH's own agent, without a terminal.
func TestTheRealSSHAgentSigns(t *testing.T) {
	for _, tool := range []string{"ssh-agent", "ssh-add"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
				t.Fatalf("%s is not installed: install openssh-client", tool)
			}
			t.Skipf("%s is not installed: install openssh-client", tool)
		}
	}
	dir, err := os.MkdirTemp("", "ring")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "agent")
	running := exec.Command("ssh-agent", "-D", "-a", socket)
	said, err := running.StdoutPipe() // tells of the socket once it is there
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = running.Process.Kill(); _ = running.Wait() }()
	if _, err := said.Read(make([]byte, 1)); err != nil {
		t.Fatalf("ssh-agent said nothing: %v", err)
	}
	key, private := newKey(t)
	block, err := ssh.MarshalPrivateKey(private, "ada@ws-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	add := exec.Command("ssh-add", "-q", "-")
	add.Stdin = strings.NewReader(string(pem.EncodeToMemory(block)))
	if said, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v: %s", err, said)
	}
	s, err := Open(AgentPrefix+fingerprint(t, private), nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSigner(t, s, key.Public())
}
