// Package content owns bytes: it stores packages and serves them to agents over HTTP.
//
// # Consumes
//
// DeploymentCreated and DeploymentRemoved, to know which packages are needed, also to take a deployment back; TrustChanged, to know who may
// publish. It answers the requests of
// package events that begin with Content, and on HTTP, at addresses that it signs and that soon expire:
//
//	GET, HEAD /v1/blobs/SHA256   bytes, with ranges and conditions; their digest is the strong ETag
//	PUT       /v1/blobs/SHA256   exactly the bytes of that digest and size, nothing else
//
// # Emits
//
// PackagePublished when a package's manifest and all its bytes are stored; PackageRemoved.
//
// # Keeps
//
// A package's manifest as its publishers signed it (a DSSE envelope) is a blob, and the digest of that blob
// is the package's. Blobs are in a directory (package blobstore), beside the key that signs addresses (0600). In the bucket
// chandler_packages one record for each package, with the manifest unless that is too large and only
// stored as a blob like every other, one for each deployment that needs a package, and the newest trust
// bundle. Manifests are checked by package manifest before anything is recorded, also that a publisher signed
// them, once it is known who may: on the word of credentials, since agents alone are to be convinced. What a package depends
// on, and removes, must be published before it (package closure), and stays as long as it does: a package that deployments or
// others need is not removed. One process owns a directory: it is what makes publishing and removing wait for each other.
//
// # On failure
//
// A package is recorded before it is announced, and marked when the announcement is stored; a removal is
// marked before it begins. What a crash interrupts is completed at the next start and then every minute,
// under the same event ids. Blobs that were uploaded for a package that was never committed stay until a
// later removal meets them, as do those of a removed package whose manifest was lost, or that were to be
// removed while another's manifest could not be read. A deployment that is created in the moment in which its package is removed
// loses: its agents report content_unavailable.
//
// While the broker is away the service goes on serving bytes and tries again for ever; Check says so. A
// full disk fails uploads with a clear answer and leaves no half blob.
//
// Publishing the same package again repairs and announces it once more: blobs that are missing or decayed are
// uploaded anew, the manifest too, with the signatures it had. Blobs are hashed for that up to 2 GiB in one request; those beyond, and
// single ones that are larger, are only compared by size. Their decay is found by the agents, who know the
// digest. A bucket that was lost and made anew is filled from the
// manifests among the blobs.
package content
