"""placeholder"""


def plotly_js() -> str:
    return ""


def html(report):
    return ""
