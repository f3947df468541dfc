package events

// Requests to content.
var (
	ContentUpload = call[UploadRequest, UploadAnswer]("content", "upload", ByDeployer, "where to PUT the blobs that the store lacks")
	ContentCommit = call[CommitRequest, PackageInfo]("content", "commit", ByDeployer, "publish a package whose blobs are all stored")
	ContentList   = call[Nothing, PackageList]("content", "list", ByViewer, "every package")
	ContentShow   = call[Named, PackageInfo]("content", "show", ByViewer, "one package; without a version the newest published")
	ContentRemove = call[Named, PackageInfo]("content", "remove", ByDeployer, "remove a package that no deployment needs")
	ContentLocate = call[LocateRequest, LocateAnswer]("content", "locate", ByAgent, "where to GET blobs")
)

// BlobRef names bytes.
type BlobRef struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// UploadRequest asks which of these blobs the store lacks; at most 10,000.
type UploadRequest struct {
	Blobs []BlobRef `json:"blobs"`
}

// UploadAnswer lists the blobs to send, each with a URL that takes one PUT of exactly these bytes.
type UploadAnswer struct {
	Missing []BlobURL `json:"missing"`
}

// BlobURL is a signed, short-lived address.
type BlobURL struct {
	SHA256 string `json:"sha256"`
	URL    string `json:"url"`
}

// CommitRequest publishes the signed manifest (a DSSE envelope) stored as the blob with this digest.
type CommitRequest struct {
	Manifest string `json:"manifest"`
}

// PackageInfo is a published package.
type PackageInfo struct {
	Digest   string   `json:"digest"` // of the signed manifest
	Manifest Manifest `json:"manifest"`
	By       string   `json:"by"`
	// Envelope is the DSSE envelope of the manifest as publishers signed it; Digest is of these bytes. Only
	// ContentShow gives it: a list would be too large.
	Envelope    []byte   `json:"envelope"`
	Deployments []string `json:"deployments,omitempty"` // that need it
}

// PackageList is every package, by name and then by time of publication.
type PackageList struct {
	Packages []PackageInfo `json:"packages"`
}

// LocateRequest asks for addresses of up to 1,000 blobs.
type LocateRequest struct {
	Site  string   `json:"site,omitempty"`
	Blobs []string `json:"blobs"`
}

// LocateAnswer gives for each blob the addresses to try, nearest first; a blob nobody has is absent.
type LocateAnswer struct {
	Blobs map[string][]string `json:"blobs"`
}
