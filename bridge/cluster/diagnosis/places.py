"""Which namespaces are meant, and what is read in them besides what bridge itself works with."""

from dataclasses import dataclass

from bridge.cluster.api import Resource
from bridge.core.permissions import Place

CONFIG_MAPS = Resource("configmaps", "ConfigMap")
NAMESPACES = Resource("namespaces", "Namespace")
SERVICE_ACCOUNTS = Resource("serviceaccounts", "ServiceAccount")
QUOTAS = Resource("resourcequotas", "ResourceQuota")
DEPLOYMENTS = Resource("deployments", "Deployment", "apps")
CRDS = Resource("customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io")


@dataclass(frozen=True)
class Places:
    """Which namespaces are meant."""

    runs: str
    """Of records, Workflows and WorkflowTemplates."""
    brigade: str
    release: str
    """Of bridge's own Deployments and the Lease."""
    argo: str = ""
    """Of Argo's controller; empty: wherever one is found."""

    def of(self, place: Place) -> str:
        """The namespace of a part; empty for the whole cluster."""
        return {Place.RUNS: self.runs, Place.BRIGADE: self.brigade, Place.RELEASE: self.release}.get(place, "")
