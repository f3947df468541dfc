package smbsource

import (
	"context"
	"crypto/rand"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"chandler/agent/source/sambatest"
)

// BenchmarkReading reads one file from beginning to end over an encrypted session, as fetching does, and compares with
// Samba's own client in the same run.
func BenchmarkReading(b *testing.B) {
	samba := sambatest.New(b, sambatest.Options{})
	samba.User("reader", secret)
	data := make([]byte, 256<<20)
	_, _ = rand.Read(data)
	samba.Write(sambatest.Software, "large", data)
	s := New(Options{})
	defer s.Close()
	b.SetBytes(int64(len(data)))
	var ours, theirs time.Duration
	for b.Loop() {
		began := time.Now()
		o := openT(b, s, samba.Address(sambatest.Software, "large"), "reader")
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.NewSectionReader(readerAt{b.Context(), o.ReadAt}, 0, o.Info().Size), make([]byte, 1<<20))
		if n != int64(len(data)) || err != nil {
			b.Fatalf("%d bytes: %v", n, err)
		}
		o.Close()
		ours += time.Since(began)

		b.StopTimer()
		began = time.Now()
		host, port, _ := strings.Cut(samba.Host(), ":")
		cmd := exec.CommandContext(b.Context(), "smbclient", "//"+host+"/"+sambatest.Software, "-p", port, "-U", "reader", "--client-protection=encrypt", "-c", "get large /dev/null")
		cmd.Env = append(cmd.Environ(), "PASSWD="+secret)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("smbclient: %v: %s", err, out)
		}
		theirs += time.Since(began)
		b.StartTimer()
	}
	b.ReportMetric(float64(theirs)/float64(ours), "of-smbclient")
}

type readerAt struct {
	ctx context.Context
	at  func(context.Context, []byte, int64) (int, error)
}

func (r readerAt) ReadAt(p []byte, offset int64) (int, error) { return r.at(r.ctx, p, offset) }
