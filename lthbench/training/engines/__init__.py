"""The engines that train jobs: plain, compact and stacked."""
