package httpssource

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"chandler/agent/source"
	"chandler/events"
)

// version is what a server says by which one can tell files at an address apart.
type version struct{ etag, date string }

func versionOf(h http.Header) version {
	return version{etag: h.Get("ETag"), date: h.Get("Last-Modified")}
}

// require asks for this version only. A weak ETag never matches and is not asked for, only compared.
func (v version) require(h http.Header) {
	switch {
	case v.etag != "" && !strings.HasPrefix(v.etag, "W/"):
		h.Set("If-Match", v.etag)
	case v.date != "":
		h.Set("If-Unmodified-Since", v.date)
	}
}

func setRange(h http.Header, from, length int64) {
	switch {
	case length >= 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+length-1))
	case from > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
}

// accept checks the head of an answer against what was asked for, and says where the stream ends.
func (o *object) accept(a *http.Response, s *stream) error {
	if err := o.status(a, s.at); err != nil {
		return err
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return refuse(events.SourceUnsupported, "the server encodes the file on its way", notSupported)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	size := a.ContentLength
	s.end = size
	if a.StatusCode == http.StatusPartialContent {
		first, last, total, ok := parseContentRange(a.Header.Get("Content-Range"))
		if !ok || first != s.at || a.ContentLength >= 0 && a.ContentLength != last-first+1 {
			return refuse(events.SourceUnreachable, "the server sends other bytes than it was asked for", source.BadNetworkPath)
		}
		s.end, size = last+1, total
	}
	if !o.opened {
		o.version, o.size, o.info.Size = versionOf(a.Header), size, size
		o.info.Modified, _ = http.ParseTime(a.Header.Get("Last-Modified"))
		return nil
	}
	if versionOf(a.Header) != o.version || size != o.size && size >= 0 && o.size >= 0 {
		return changed()
	}
	return nil
}

// status is nil for an answer that has the bytes from an offset on.
func (o *object) status(a *http.Response, from int64) error {
	words := strings.TrimSpace(fmt.Sprintf("http %d %s", a.StatusCode, strings.ToLower(http.StatusText(a.StatusCode))))
	switch a.StatusCode {
	case http.StatusOK:
		if from > 0 && versionOf(a.Header) != o.version {
			return changed()
		}
		if from > 0 {
			return refuse(events.SourceUnsupported, "the server cannot begin in the middle of a file: it can only be read from the beginning on", notSupported)
		}
		return nil
	case http.StatusPartialContent:
		if a.Request.Header.Get("Range") != "" {
			return nil
		}
		return refuse(events.SourceUnreachable, "the server sends a part of the file where it was asked for all", source.BadNetworkPath)
	case http.StatusUnauthorized:
		if o.proof.nobody {
			return refuse(events.NoNetworkIdentity, words+": the server wants an account, and none was named", source.AccessDenied)
		}
		return refuse(events.CredentialRejected, words, source.LogonRefused)
	case http.StatusForbidden:
		return refuse(events.NetworkAccessDenied, words, source.AccessDenied)
	case http.StatusNotFound, http.StatusGone:
		return refuse(events.SourceNotFound, words, source.FileNotFound)
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return changed()
	}
	return refuse(events.SourceUnreachable, words, source.BadNetworkPath)
}

func changed() error {
	return &source.Error{Reason: events.ContentChanged, Answer: "the server has another file now than when it was opened"}
}

// parseContentRange reads "bytes 0-9/100"; total is -1 for *.
func parseContentRange(text string) (first, last, total int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	span, all, found := strings.Cut(text, "/")
	from, to, both := strings.Cut(span, "-")
	if !ok || !found || !both {
		return 0, 0, 0, false
	}
	first, ok1 := parseNumber(from)
	last, ok2 := parseNumber(to)
	total, ok3 := parseNumber(all)
	if all == "*" {
		total, ok3 = -1, true
	}
	ok = ok1 && ok2 && ok3 && first <= last && (total < 0 || last < total)
	return first, last, total, ok
}

// parseNumber takes digits only, and nothing that could overflow when one is added.
func parseNumber(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 62)
	return int64(n), err == nil
}
