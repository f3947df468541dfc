package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/services/content/blobstore"
)

const (
	maxUpload = 10_000 // blobs in one request
	maxLocate = 1_000
	// listedFiles is how many files a list shows in all; beyond it packages are listed without theirs.
	listedFiles = 100_000
)

// upload says which blobs are missing, and where to put them.
func (s *Service) upload(ctx context.Context, _ string, req events.UploadRequest) (events.UploadAnswer, error) {
	if len(req.Blobs) > maxUpload {
		return events.UploadAnswer{}, bus.BadRequest(fmt.Errorf("%d blobs in one request, at most %d", len(req.Blobs), maxUpload))
	}
	if err := s.recallFirst(ctx); err != nil {
		return events.UploadAnswer{}, away(err)
	}
	answer := events.UploadAnswer{Missing: []events.BlobURL{}}
	seen := map[string]bool{}
	verified := int64(0)
	for _, b := range req.Blobs {
		if err := events.ValidDigest(b.SHA256); err != nil {
			return events.UploadAnswer{}, bus.BadRequest(err)
		}
		if b.Size < 0 || b.Size > s.maxBlob {
			return events.UploadAnswer{}, bus.BadRequest(fmt.Errorf("blob %s has %d bytes, at most %d are taken", b.SHA256, b.Size, s.maxBlob))
		}
		if size, err := s.blobs.Size(b.SHA256); seen[b.SHA256] || err == nil && size == b.Size && s.sound(ctx, b, &verified) {
			continue
		}
		seen[b.SHA256] = true
		answer.Missing = append(answer.Missing, events.BlobURL{SHA256: b.SHA256, URL: s.signer.put(b.SHA256, b.Size)})
	}
	return answer, nil
}

// verifyUpTo bounds what one upload request hashes again, in bytes: a second or two. Blobs beyond it, also a
// single one that is larger, are taken to be sound.
const verifyUpTo = 2 << 30

// sound says whether a stored blob still has the bytes it is named by, as far as the request's share of
// hashing reaches. One that decayed counts as missing: its upload takes its place.
func (s *Service) sound(ctx context.Context, b events.BlobRef, verified *int64) bool {
	if b.Size > verifyUpTo-*verified {
		return true
	}
	*verified += b.Size
	err := s.blobs.Verify(ctx, b.SHA256)
	if !errors.Is(err, blobstore.ErrMismatch) {
		return err == nil
	}
	s.log.ErrorContext(ctx, "a stored blob decayed and is uploaded again", "blob", b.SHA256, "error", err)
	return false
}

// locate gives addresses for the blobs that are here.
func (s *Service) locate(_ context.Context, _ string, req events.LocateRequest) (events.LocateAnswer, error) {
	if len(req.Blobs) > maxLocate {
		return events.LocateAnswer{}, bus.BadRequest(fmt.Errorf("%d blobs in one request, at most %d", len(req.Blobs), maxLocate))
	}
	answer := events.LocateAnswer{Blobs: map[string][]string{}}
	for _, digest := range req.Blobs {
		if err := events.ValidDigest(digest); err != nil {
			return events.LocateAnswer{}, bus.BadRequest(err)
		}
		if s.blobs.Has(digest) {
			answer.Blobs[digest] = []string{s.signer.get(digest)}
		}
	}
	return answer, nil
}

// list is every package, by name and then by time of publication. It leaves out envelopes, block digests, and
// the files of the largest packages where all together would be too many.
func (s *Service) list(ctx context.Context, _ string, _ events.Nothing) (events.PackageList, error) {
	all, err := s.records.packages(ctx)
	if err != nil {
		return events.PackageList{}, away(err)
	}
	uses, err := s.records.uses(ctx)
	if err != nil {
		return events.PackageList{}, away(err)
	}
	slices.SortFunc(all, func(a, b record) int {
		return comparisons(strings.Compare(a.Package, b.Package), a.Published.Compare(b.Published), strings.Compare(a.Version, b.Version))
	})
	most := affordable(all)
	out := events.PackageList{Packages: []events.PackageInfo{}}
	for _, r := range all {
		if r.Phase == removing {
			continue
		}
		info, err := s.info(r, uses)
		if err != nil {
			s.log.ErrorContext(ctx, "a package is listed without its manifest", "package", r.Package, "version", r.Version, "error", err)
			info.Manifest = r.summary()
		}
		if r.Files > most {
			info.Manifest.Files = nil
		}
		info.Manifest.Files = slices.Clone(info.Manifest.Files)
		for i := range info.Manifest.Files {
			info.Manifest.Files[i].Blocks = nil
		}
		out.Packages = append(out.Packages, info)
	}
	return out, nil
}

// affordable is the largest number of files that a package may have to be listed with them.
func affordable(all []record) int {
	counts := make([]int, len(all))
	for i, r := range all {
		counts[i] = r.Files
	}
	slices.Sort(counts)
	sum := 0
	for _, n := range counts {
		if sum += n; sum > listedFiles {
			return n - 1
		}
	}
	return listedFiles
}

func comparisons(results ...int) int {
	for _, r := range results {
		if r != 0 {
			return r
		}
	}
	return 0
}

// show is one package with everything, the envelope too.
func (s *Service) show(ctx context.Context, _ string, req events.Named) (events.PackageInfo, error) {
	rec, err := s.find(ctx, req)
	if err != nil {
		return events.PackageInfo{}, err
	}
	uses, err := s.records.uses(ctx)
	if err != nil {
		return events.PackageInfo{}, away(err)
	}
	info, err := s.info(rec, uses)
	if err != nil {
		return info, err
	}
	info.Envelope, err = seal(info.Manifest, rec.Signatures)
	return info, err
}

// info is complete but for the manifest when there is an error.
func (s *Service) info(r record, uses map[string][]string) (events.PackageInfo, error) {
	by := uses[packageKey(r.Package, r.Version)]
	slices.Sort(by)
	info := events.PackageInfo{Digest: r.Digest, By: r.By, Deployments: by}
	var err error
	if info.Manifest, err = s.manifestOf(r); err != nil {
		return info, fmt.Errorf("read manifest of %s %s, publish it again if it is lost: %w", r.Package, r.Version, err)
	}
	return info, nil
}

// find is the package of a name and version, or of the newest version published.
func (s *Service) find(ctx context.Context, req events.Named) (record, error) {
	if err := events.ValidPackage(req.Name); err != nil {
		return record{}, bus.BadRequest(err)
	}
	if req.Version != "" {
		if err := events.ValidVersion(req.Version); err != nil {
			return record{}, bus.BadRequest(err)
		}
		rec, err := s.records.get(ctx, req.Name, req.Version)
		if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && rec.Phase == removing {
			return record{}, bus.NotFound(fmt.Errorf("package %s %s is not published: `chandler package ls` lists those that are", req.Name, req.Version))
		}
		return rec, away(err)
	}
	all, err := s.records.packages(ctx)
	if err != nil {
		return record{}, away(err)
	}
	var newest record
	for _, r := range all {
		if r.Package == req.Name && r.Phase != removing && (newest.Digest == "" || comparisons(r.Published.Compare(newest.Published), r.At.Compare(newest.At)) > 0) {
			newest = r
		}
	}
	if newest.Digest == "" {
		return record{}, bus.NotFound(fmt.Errorf("no package %s is published: `chandler package ls` lists those that are", req.Name))
	}
	return newest, nil
}
