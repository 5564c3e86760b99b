// CSI drivers of two kinds, with inline volumes alone; each tells the kubelet of itself.
//
// With a SOCKET_FOLDER it stands for the SPIFFE CSI driver, whose module can't be had from the Go proxy: it mounts the folder of
// the Workload API's socket into pods that have a volume csi: {driver: csi.spiffe.io, readOnly: true}.
//
// Without, it does what drivers of secrets do, whose CSIDriver has tokenRequests: it writes what the kubelet brings, the pod's
// service account tokens by audience, into the volume. The real ones take a token to a store of secrets instead.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Where the kubelet puts the tokens (CSI "Token Requests").
const tokens = "csi.storage.k8s.io/serviceAccount.tokens"

type driver struct {
	csi.UnimplementedNodeServer
	registration.UnsafeRegistrationServer
	name string
	// Empty if it writes tokens.
	sockets string
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 4 {
		log.Fatal("usage: csi-driver NAME KUBELET_FOLDER [SOCKET_FOLDER]")
	}
	served := &driver{name: os.Args[1]}
	if len(os.Args) == 4 {
		served.sockets = os.Args[3]
	}
	node, registrar := grpc.NewServer(), grpc.NewServer()
	csi.RegisterNodeServer(node, served)
	registration.RegisterRegistrationServer(registrar, served)
	go serve(node, served.endpoint())
	// The kubelet looks into this folder, and asks whoever listens there what it is.
	serve(registrar, filepath.Join(os.Args[2], "plugins_registry", served.name+"-reg.sock"))
}

func (d *driver) endpoint() string {
	return filepath.Join("/run", d.name+".sock")
}

func serve(server *grpc.Server, path string) {
	_ = os.Remove(path) // what an earlier one left
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: d.name, Endpoint: d.endpoint(), SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (*driver) NotifyRegistrationStatus(_ context.Context, told *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %t %s", told.PluginRegistered, told.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func (*driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node"}, nil
}

// Nothing beyond mounting.
func (*driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, asked *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	// As the real one does.
	if (d.sockets != "" && !asked.Readonly) || asked.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true" {
		return nil, status.Error(codes.InvalidArgument, "the volume should be ephemeral and have readOnly: true")
	}
	if err := os.MkdirAll(asked.TargetPath, 0o750); err != nil {
		return nil, err
	}
	if d.sockets == "" {
		if asked.VolumeContext[tokens] == "" {
			return nil, status.Error(codes.InvalidArgument, "the kubelet brought no tokens")
		}
		log.Printf("writing the tokens of %s", asked.VolumeContext["csi.storage.k8s.io/pod.name"])
		return &csi.NodePublishVolumeResponse{}, os.WriteFile(filepath.Join(asked.TargetPath, "tokens"), []byte(asked.VolumeContext[tokens]), 0o644)
	}
	log.Printf("mounting at %s", asked.TargetPath)
	if said, err := exec.Command("mount", "--bind", d.sockets, asked.TargetPath).CombinedOutput(); err != nil {
		return nil, status.Error(codes.Internal, string(said))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (*driver) NodeUnpublishVolume(_ context.Context, asked *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	log.Printf("unmounting %s", asked.TargetPath)
	// It may be gone already; then only the folder is left, or nothing.
	_ = exec.Command("umount", asked.TargetPath).Run()
	_ = os.Remove(filepath.Join(asked.TargetPath, "tokens"))
	if err := os.Remove(asked.TargetPath); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
