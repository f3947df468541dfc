package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"
)

// needle is a secret in one of the forms in which it could be written down.
type needle struct {
	form string
	text []byte
}

// needlesOf are the forms of a secret, also where it is a part of something longer.
func needlesOf(secret string) (list []needle) {
	add := func(form string, text []byte) { list = append(list, needle{form, text}) }
	add("as it is", []byte(secret))
	var wide []byte
	for _, unit := range utf16.Encode([]rune(secret)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	add("in UTF-16", wide)
	add("as a list of numbers", []byte(strings.Trim(fmt.Sprint([]byte(secret)), "[]")))
	add("as a list of numbers with commas", []byte(strings.ReplaceAll(strings.Trim(fmt.Sprint([]byte(secret)), "[]"), " ", ",")))
	for _, form := range []needle{{"as it is", []byte(secret)}, {"in UTF-16", wide}} {
		digits := hex.EncodeToString(form.text)
		add(form.form+" in hexadecimal digits", []byte(digits))
		add(form.form+" in capital hexadecimal digits", []byte(strings.ToUpper(digits)))
		for before := range 3 {
			add(form.form+" in base64 after "+strconv.Itoa(before)+" bytes", inBase64(base64.RawStdEncoding, form.text, before))
			if url := inBase64(base64.RawURLEncoding, form.text, before); !bytes.Equal(url, list[len(list)-1].text) {
				add(form.form+" in base64 of addresses after "+strconv.Itoa(before)+" bytes", url)
			}
		}
	}
	return list
}

// inBase64 is what is the same of text whatever stands around it, if so many bytes of a group of three stand before it.
func inBase64(encoding *base64.Encoding, text []byte, before int) []byte {
	whole := []byte(encoding.EncodeToString(append(make([]byte, before), text...)))
	end := (before + len(text)) / 3 * 4        // of the groups that hold nothing behind it
	return whole[(before+2)/3*4 : max(end, 0)] // without the group that holds what stands before
}

// overlap is what two chunks have in common: more than any needle is long.
const overlap = 1 << 10

// search gives the forms that r holds, each once.
func search(r io.Reader, needles []needle) (forms []string, err error) {
	found := map[string]bool{}
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		chunk := buf[:kept+n]
		for _, one := range needles {
			if !found[one.form] && bytes.Contains(chunk, one.text) {
				found[one.form] = true
				forms = append(forms, one.form)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return forms, nil
		}
		if err != nil {
			return forms, err
		}
		kept = copy(buf, chunk[len(chunk)-overlap:])
	}
}

// searchFiles searches every regular file below a directory. It gives those that hold the secret, with its forms, and how
// many there were.
func searchFiles(t *testing.T, dir string, needles []needle) (found map[string][]string, files int) {
	t.Helper()
	found = map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went away meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer file.Close()
		files++
		forms, err := search(file, needles)
		if len(forms) > 0 {
			found[path] = forms
		}
		return err
	})
	if err != nil {
		t.Fatalf("search %s: %v", dir, err)
	}
	return found, files
}

// sampleEvery is how often processes are looked at.
const sampleEvery = 50 * time.Millisecond

// watchProcesses looks at the arguments and the environment of all processes of this machine, which sees those of its
// containers too, until what it gives is called, which makes sure that none held the secret.
func watchProcesses(t *testing.T, needles []needle) (stop func()) {
	t.Helper()
	over := make(chan struct{})
	found := map[string]bool{}
	samples := 0
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			samples += sampleProcesses(needles, found)
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(over)
		watching.Wait()
		for what := range found {
			t.Errorf("a process had the secret: %s", what)
		}
		if samples == 0 {
			t.Error("no process was looked at")
		}
	})
	t.Cleanup(stop)
	return stop
}

// sampleProcesses looks at every process once and counts what it could read.
func sampleProcesses(needles []needle, found map[string]bool) (samples int) {
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range paths {
		for _, name := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue // it has ended
			}
			samples++
			if forms, _ := search(bytes.NewReader(data), needles); len(forms) > 0 {
				command, _ := os.ReadFile(filepath.Join(dir, "comm"))
				found[name+" of "+strings.TrimSpace(string(command))+": "+strings.Join(forms, "; ")] = true
			}
		}
	}
	return samples
}

func TestASecretIsFoundInEveryFormAndAcrossChunks(t *testing.T) {
	t.Parallel()
	const secret = "Pl4nted-s3cret?>~"
	needles := needlesOf(secret)
	var wide []byte
	for _, c := range []byte("§"[1:] + secret) {
		wide = append(wide, c, 0)
	}
	forms := map[string][]byte{
		"as it is": []byte("password=" + secret + "\n"), "in UTF-16": wide,
		"in hexadecimal digits": []byte(hex.EncodeToString([]byte("x" + secret + "y"))), "in capital digits": []byte(strings.ToUpper(hex.EncodeToString([]byte(secret)))),
		"a byte slice, printed":        fmt.Append(nil, []byte("x"+secret+"y")),
		"UTF-16 in hexadecimal digits": []byte(hex.EncodeToString(wide)),
	}
	for before := range 7 {
		for after := range 4 {
			text := strings.Repeat("a", before) + secret + strings.Repeat("z", after)
			name := strconv.Itoa(before) + " bytes before and " + strconv.Itoa(after) + " behind"
			forms["base64, "+name] = []byte(base64.StdEncoding.EncodeToString([]byte(text)))
			forms["base64 of addresses, "+name] = []byte(base64.RawURLEncoding.EncodeToString([]byte(text)))
			forms["UTF-16 in base64, "+name] = []byte(base64.StdEncoding.EncodeToString(append(make([]byte, before), wide...)))
		}
	}
	for name, text := range forms {
		for _, at := range []int{0, 1<<20 - 5, 1<<20 - overlap - 1, 2<<20 - overlap + 3} {
			found, err := search(bytes.NewReader(append(make([]byte, at), text...)), needles)
			if err != nil || len(found) == 0 {
				t.Errorf("%s at %d: found %v, %v", name, at, found, err)
			}
		}
	}
	if found, err := search(strings.NewReader(strings.Repeat("Pl4nted-s3cret", 1<<17)), needles); err != nil || len(found) > 0 {
		t.Errorf("what is not there is found: %v, %v", found, err)
	}
}
