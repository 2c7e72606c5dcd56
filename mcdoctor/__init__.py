"""mcdoctor: why does traffic from one workload fail on its way to a service, often in another cluster?"""

__version__ = "0.1.0"
